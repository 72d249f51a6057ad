"""What the lessons share: pictures, pre-trained weights, checks and measurements."""
