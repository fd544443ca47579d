"""Config of the vision transformer."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from zoo_core.config import Ratio, Size, VisionTowerConfig
from zoo_core.sizes import transformer_parameters


class ViTConfig(VisionTowerConfig):
    """A vision transformer with a class token, learned positions and a linear projection."""

    tower: str = "vit"
    image_size: Size = (224, 224)
    """Height and width in pixels of the images."""
    patch_size: Size = (16, 16)
    """Height and width in pixels of a patch; divides the image size."""
    width: Annotated[int, Field(ge=1, le=65_536)] = 768
    """Channels."""
    layers: Annotated[int, Field(ge=1, le=1_000)] = 12
    """Residual blocks."""
    head_width: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Channels of an attention head; divides the width."""
    mlp_ratio: Ratio = 4.0
    """Hidden channels of the perceptron, as a multiple of the width (rounded down)."""
    ls_init_value: Annotated[float, Field(gt=0)] | None = None
    """Initial LayerScale of each residual branch; no LayerScale where null."""
    patch_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the patches that training leaves out at random (Li et al. 2023)."""
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    """Activation of the perceptron. OpenAI's weights and some others were trained with quick_gelu."""
    norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Epsilon of the layer norms."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold patches to the image and heads to the width."""
        yield from super().rules()
        for side, image, patch in zip(("height", "width"), self.image_size, self.patch_size, strict=True):
            if image % patch:
                yield "patch_size", f"{patch} does not divide the image {side} {image}"
        if self.width % self.head_width:
            yield "head_width", f"{self.head_width} does not divide the width {self.width}"

    def parameter_count(self, embed_dim: int) -> int:
        """Return the exact number of parameters."""
        rows, columns = self.grid
        patches = 3 * self.patch_size[0] * self.patch_size[1] * self.width
        positions = (rows * columns + 2) * self.width  # one for each patch, one for the class token, and that token
        stack = transformer_parameters(
            self.width,
            self.layers,
            self.width // self.head_width,
            self.mlp_ratio,
            layer_scale=self.ls_init_value is not None,
        )
        return patches + positions + stack + 4 * self.width + self.width * embed_dim
