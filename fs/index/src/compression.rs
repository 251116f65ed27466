//! How a layer's blob is compressed: what its media type says, and what its first bytes say.

/// How a layer's tar stream is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// The blob is the tar stream.
    None,
    /// One or more gzip members.
    Gzip,
    /// One or more zstd frames.
    Zstd,
}

/// Bytes that [`Compression::detect`] needs to see.
pub(crate) const MAGIC_BYTES: usize = 4;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A skippable zstd frame: the low four bits of the first byte are free.
const ZSTD_SKIPPABLE_MAGIC: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];

impl Compression {
    /// What a layer's media type promises; `None` for types that are no layer.
    ///
    /// The OCI types are those of the image specification 1.1, without the foreign ones, whose blobs no registry has to serve.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => Some(Self::None),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar+gzip" => Some(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.diff.tar+zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// What a blob's first bytes (four are enough) say; [`Compression::None`] where they are no known magic.
    pub fn detect(start: &[u8]) -> Self {
        let is_skippable = |magic: &[u8; 4]| (magic[0] & 0xf0, &magic[1..]) == (ZSTD_SKIPPABLE_MAGIC[0], &ZSTD_SKIPPABLE_MAGIC[1..]);
        match start.first_chunk::<4>() {
            _ if is_gzip(start) => Self::Gzip,
            Some(magic) if *magic == ZSTD_MAGIC || is_skippable(magic) => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Whether a gzip member may start here.
pub(crate) fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(&GZIP_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_of_layers_are_known_and_others_are_not() {
        for (media_type, compression) in [
            ("application/vnd.oci.image.layer.v1.tar", Some(Compression::None)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Some(Compression::Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Compression::Zstd)),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Compression::Gzip)),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", None),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", None),
            ("application/vnd.oci.image.config.v1+json", None),
        ] {
            assert_eq!(Compression::of_media_type(media_type), compression, "{media_type}");
        }
    }

    #[test]
    fn magic_bytes_decide() {
        assert_eq!(Compression::detect(&[0x1f, 0x8b]), Compression::Gzip);
        assert_eq!(Compression::detect(&[0x28, 0xb5, 0x2f, 0xfd, 0]), Compression::Zstd);
        assert_eq!(Compression::detect(&[0x5e, 0x2a, 0x4d, 0x18]), Compression::Zstd);
        assert_eq!(Compression::detect(&[0x28, 0xb5, 0x2f]), Compression::None);
        assert_eq!(Compression::detect(b""), Compression::None);
        assert_eq!(Compression::detect(b"etc/passwd"), Compression::None);
    }
}
