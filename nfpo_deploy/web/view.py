"""The robot in 3D, drawn by viser on a loopback port; display only."""

from __future__ import annotations

import contextlib
import io
import os

import numpy as np
import trimesh
import viser

from nfpo_deploy.web.shapes import Body, Geom, read_bodies
from robots.loader import RobotSpec

FLOOR_CELL_M = 1.0
SKY = (0.09, 0.11, 0.14)


class _View(viser.ViserServer):
    def request_share_url(self, verbose: bool = True) -> str | None:
        """Refuse: any client may ask for it, and it would show the robot to the Internet."""
        return None


class RobotView:
    """One scene for all browsers. The robot stays in the middle and the floor moves, so it never leaves the picture."""

    def __init__(self, spec: RobotSpec) -> None:
        """Start viser on a loopback port of the system's choice.

        Raises:
            WebError: the robot's model cannot be drawn.
        """
        bodies = read_bodies(spec.model_path)
        # viser would listen there instead.
        os.environ.pop("_VISER_PORT_OVERRIDE", None)
        with contextlib.redirect_stdout(io.StringIO()):  # it announces an address that users have no business with
            self._server = _View(host="127.0.0.1", port=0, label=spec.name, verbose=False)
        self.port = self._server.get_port()
        self._set_scene()
        self._joints: list[tuple[int, np.ndarray, viser.FrameHandle]] = []
        paths: dict[str, str] = {"": ""}
        for body in bodies:
            paths[body.name] = f"{paths[body.parent]}/{body.name}"
            frame = self._server.scene.add_frame(
                paths[body.name], show_axes=False, position=body.position, wxyz=body.quat_wxyz
            )
            if not body.parent:
                self._base = frame
            if body.joint in spec.joint_names:
                self._joints.append((spec.joint_names.index(body.joint), _basis(body), frame))
            self._draw(paths[body.name], body)

    def stop(self) -> None:
        """End viser."""
        self._server.stop()

    def update(self, position_w: np.ndarray, quat_wxyz: np.ndarray, q: np.ndarray) -> None:
        """Show a pose: (3,) m in odom, (4,) base_link to odom, (N,) joint angles in the spec's order, rad."""
        with self._server.atomic():
            self._base.position = np.array([0.0, 0.0, position_w[2]])
            self._base.wxyz = np.asarray(quat_wxyz, dtype=np.float64)
            offset = -(np.asarray(position_w[:2]) % FLOOR_CELL_M)
            self._floor.position = np.array([offset[0], offset[1], 0.0])
            for index, basis, frame in self._joints:
                frame.wxyz = basis @ np.array([np.cos(q[index] / 2), np.sin(q[index] / 2)])

    def _set_scene(self) -> None:
        server = self._server
        server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False, control_width="small")
        server.gui.main_panel.minimize()
        server.scene.configure_default_lights(cast_shadow=False)
        server.scene.set_up_direction("+z")
        server.scene.set_background_image(np.full((2, 2, 3), np.array(SKY) * 255, dtype=np.uint8))
        self._floor = server.scene.add_grid(
            "/floor", width=12.0, height=12.0, cell_size=FLOOR_CELL_M / 4, section_size=FLOOR_CELL_M,
            cell_color=(60, 66, 74), section_color=(96, 104, 116),
        )  # fmt: skip
        server.initial_camera.position = (1.0, -1.1, 0.7)
        server.initial_camera.look_at = (0.0, 0.0, 0.2)
        server.initial_camera.up = (0.0, 0.0, 1.0)

    def _draw(self, path: str, body: Body) -> None:
        # One mesh for each colour: every part of its own costs each browser a draw call.
        colours = sorted({geom.rgb for geom in body.geoms})
        for number, colour in enumerate(colours):
            meshes = [_mesh(geom) for geom in body.geoms if geom.rgb == colour]
            starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
            faces = [mesh.faces + start for mesh, start in zip(meshes, starts[:-1], strict=True)]
            vertices = np.concatenate([mesh.vertices for mesh in meshes]).astype(np.float32)
            self._server.scene.add_mesh_simple(f"{path}/shape{number}", vertices, np.concatenate(faces), color=colour)


def _basis(body: Body) -> np.ndarray:
    """(4, 2) so that `basis @ [cos(q/2), sin(q/2)]` is the body's orientation at joint angle q."""
    turned = trimesh.transformations.quaternion_multiply(body.quat_wxyz, [0.0, *body.axis])
    return np.stack([body.quat_wxyz, turned], axis=1)


def _mesh(geom: Geom) -> trimesh.Trimesh:
    """Triangles of a shape in its body's frame."""
    radius, half = geom.size[0], geom.size[1]
    if geom.kind == "box":
        mesh = trimesh.creation.box(extents=2.0 * geom.size)
    elif geom.kind == "capsule":
        mesh = trimesh.creation.capsule(height=2.0 * half, radius=radius, count=(16, 16))
        mesh.apply_translation(-mesh.bounds.mean(axis=0))
    elif geom.kind == "cylinder":
        mesh = trimesh.creation.cylinder(radius=radius, height=2.0 * half, sections=24)
    else:
        mesh = trimesh.creation.icosphere(subdivisions=2, radius=1.0)
        mesh.apply_scale(geom.size if geom.kind == "ellipsoid" else radius)
    transform = trimesh.transformations.quaternion_matrix(geom.quat_wxyz)
    transform[:3, 3] = geom.position
    mesh.apply_transform(transform)
    return mesh
