"""The third network of the embedded model: a neck on frozen DINOv2 features, for organs that nobody trained on."""
