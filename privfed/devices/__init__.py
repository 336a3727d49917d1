"""What happens on the devices: sampling, local training and its privacy."""
