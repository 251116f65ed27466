//! Every layer format in, one layer index out; and the merged image tree
