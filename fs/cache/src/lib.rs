//! A layer's data file, its presence map, and the disk budget
