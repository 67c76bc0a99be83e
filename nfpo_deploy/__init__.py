"""Robot runtime of nfpo: pure stages from sensor to motor, and thin ROS 2 shells around them."""
