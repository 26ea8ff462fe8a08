"""What a run calls: for each image, and at its end. Nothing of it ends a run or holds it up."""
