"""What to show: features, model, online training, calibration, slate. Arrays in, arrays out."""
