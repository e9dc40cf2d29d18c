"""Standard datasets of images, a file each family."""
