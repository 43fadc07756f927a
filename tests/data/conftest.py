"""Real images, as the tests of images have them."""

from ..signals.image.conftest import astronaut, folder, photos, pictures

__all__ = ["astronaut", "folder", "photos", "pictures"]
