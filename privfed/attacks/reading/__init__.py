"""What attacks of several kinds read uploads with: axes, lines, grids, replays."""
