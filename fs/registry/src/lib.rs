//! Bytes of a blob by digest and range, from a registry or an OCI layout on disk
