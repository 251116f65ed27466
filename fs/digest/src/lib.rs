//! SHA-256 digests as the OCI specifications write them: `sha256:<64 hex digits>`.
//!
//! This is the one vocabulary that every stage of the data path shares; it depends on none of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

const PREFIX: &str = "sha256:";

/// A SHA-256 digest: 32 bytes, shown as `sha256:<hex>`.
///
/// The image specification also registers sha512; no registry in use serves it for layers, so it is refused by name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The text names an algorithm other than sha256.
    #[error("digest {0:?} does not use sha256, the only algorithm supported")]
    Algorithm(String),
    /// The part after `sha256:` is not 64 lower-case hex digits.
    #[error("digest {0:?} is not sha256: and 64 lower-case hex digits")]
    Hex(String),
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// A digest from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The first 12 hex digits, as people read them.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let clipped = || text.chars().take(100).collect::<String>();
        let hex = text.strip_prefix(PREFIX).ok_or_else(|| DigestError::Algorithm(clipped()))?;
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return Err(DigestError::Hex(clipped()));
        }
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
                return Err(DigestError::Hex(clipped()));
            };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// SHA-256 over bytes that come in pieces.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_empty_input_has_the_known_digest() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Hasher::new().finish().to_string(), EMPTY);
    }

    #[test]
    fn pieces_hash_as_the_whole() {
        let mut hasher = Hasher::new();
        hasher.update(b"ab");
        hasher.update(b"c");
        assert_eq!(hasher.finish(), Digest::of(b"abc"));
    }

    #[test]
    fn text_round_trips_and_wrong_text_is_refused() {
        assert_eq!(EMPTY.parse::<Digest>().unwrap().to_string(), EMPTY);
        assert!(matches!("sha512:00".parse::<Digest>(), Err(DigestError::Algorithm(_))));
        assert!(matches!("sha256:00".parse::<Digest>(), Err(DigestError::Hex(_))));
        assert!(matches!(EMPTY.to_uppercase().replace("SHA256", "sha256").parse::<Digest>(), Err(DigestError::Hex(_))));
        assert!(matches!(format!("sha256:{}", "é".repeat(32)).parse::<Digest>(), Err(DigestError::Hex(_))));
    }

    #[test]
    fn json_holds_the_text() {
        let digest: Digest = serde_json::from_str(&format!("{EMPTY:?}")).unwrap();
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("{EMPTY:?}"));
    }
}
