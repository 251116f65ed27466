//! Descriptors as containerd writes them.

use snap_registry::Descriptor;

use crate::api::types;

/// A descriptor for containerd: what its records have no field for is left out.
pub(super) fn to_message(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: descriptor.size_bytes.cast_signed(),
        annotations: descriptor.annotations.clone(),
    }
}

/// A descriptor of containerd's, or what is wrong with it.
pub(super) fn of_message(message: types::Descriptor) -> Result<Descriptor, String> {
    let digest = message.digest.parse().map_err(|error| format!("a descriptor whose {error}"))?;
    let size_bytes = u64::try_from(message.size).map_err(|_| format!("a descriptor of {} bytes", message.size))?;
    Ok(Descriptor { annotations: message.annotations, ..Descriptor::new(digest, size_bytes, message.media_type) })
}
