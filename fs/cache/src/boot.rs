//! The boot ID: in which boot a chunk was verified.

use std::fs;
use std::io;
use std::path::Path;

use crate::Error;

const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// The ID the kernel gave itself at boot. What was verified under another ID must be verified again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootId([u8; 16]);

impl BootId {
    /// The ID of the running kernel's boot.
    ///
    /// # Errors
    /// [`Error::BootId`] without a procfs.
    pub fn current() -> Result<Self, Error> {
        let path = Path::new(BOOT_ID_PATH);
        let failed = |source| Error::BootId { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(failed)?;
        Self::parse(text.trim_end()).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
    }

    /// A boot ID from its 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads the kernel's form, a UUID with dashes.
    fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        Some(Self(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_a_boot_id_that_stays() {
        assert_eq!(BootId::current().unwrap(), BootId::current().unwrap());
    }

    #[test]
    fn only_a_uuid_is_a_boot_id() {
        let id = BootId::parse("00010203-0405-0607-0809-0a0b0c0d0e0f").unwrap();
        assert_eq!(id.as_bytes(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        for wrong in ["", "0001", "0001020304050607080900a0b0c0d0e0f0", "+0010203-0405-0607-0809-0a0b0c0d0e0f", "é"] {
            assert_eq!(BootId::parse(wrong), None, "{wrong:?}");
        }
    }
}
