//! What registries answer: image indexes, manifests of today and of docker's first format, configurations.

use snap_registry::{Descriptor, Schema1Blob, parse_config, parse_index, parse_manifest, parse_schema1, schema1_payload};

/// Each document is read as all of them.
pub fn documents(input: &[u8]) {
    let _ = parse_index(input);
    let _ = parse_manifest(input, &Descriptor::of(input, ""));
    let _ = parse_config(input);
    let payload = schema1_payload(input);
    let Ok(manifest) = parse_schema1(input) else { return };
    let payload = payload.expect("what can be read has a sound signature or none").unwrap_or_else(|| input.to_vec().into());
    assert_eq!(parse_schema1(&payload).expect("what is signed can be read").digest, manifest.digest);
    let blobs: Vec<_> = manifest.kept_blobs().map(|digest| Schema1Blob { digest, size_bytes: 1, diff_id: digest }).collect();
    if let Ok(converted) = manifest.convert(&blobs) {
        let read = parse_manifest(&converted.manifest_bytes, &converted.manifest).expect("what was made can be read");
        assert_eq!(read.layers.len(), blobs.len());
        assert_eq!(parse_config(&converted.config_bytes).expect("what was made can be read").diff_ids.len(), blobs.len());
    }
}
