//! What an image runs on: `os/architecture[/variant]`, in Go's words as the image specification wants.

use std::fmt;
use std::str::FromStr;

/// An operating system and a processor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    /// GOOS: `linux`.
    pub os: String,
    /// GOARCH: `amd64`, `arm64`, `arm`.
    pub architecture: String,
    /// The processor's variant, if the architecture has any: `v7`.
    pub variant: Option<String>,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a platform; hint: os/architecture[/variant], such as linux/amd64 or linux/arm/v7")]
pub struct PlatformError {
    /// The text, cut to a readable length.
    pub text: String,
}

impl Platform {
    /// The platform this program runs on.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self::normalized("linux", architecture, variant)
    }

    /// The platform in the words that containerd normalizes to, so that `linux/arm64` and `linux/arm64/v8` are one.
    pub(crate) fn normalized(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = os.to_ascii_lowercase();
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.map(str::to_ascii_lowercase).filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64", Some(other)) => ("amd64", Some(other)),
            ("i386", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("8" | "v8" | "v8.0")) => ("arm64", None),
            ("aarch64", Some(other)) => ("arm64", Some(other)),
            ("armhf" | "arm", None | Some("7")) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            (architecture, variant) => (architecture, variant),
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }

    /// How well an image for `self` runs where `host` is asked for: `None` not at all, 0 exactly, more is worse.
    ///
    /// An arm host also runs older variants, as does an amd64 host (`v2` on `v3`): containerd's rule.
    pub(crate) fn distance(&self, host: &Self) -> Option<u32> {
        let (image, host) = (self.renormalized(), host.renormalized());
        if image.os != host.os || image.architecture != host.architecture {
            return None;
        }
        if image.variant == host.variant {
            return Some(0);
        }
        let lowest = match host.architecture.as_str() {
            "amd64" => 1,
            "arm" => 5,
            "arm64" => 8,
            _ => return None,
        };
        let level = |platform: &Self| match &platform.variant {
            None => Some(lowest),
            Some(variant) => variant.strip_prefix('v')?.parse::<u32>().ok(),
        };
        let (image, host) = (level(&image)?, level(&host)?);
        host.checked_sub(image)
    }

    fn renormalized(&self) -> Self {
        Self::normalized(&self.os, &self.architecture, self.variant.as_deref())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part.len() <= 64
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        match parts.as_slice() {
            [os, architecture, variant @ ..] if variant.len() <= 1 && parts.iter().all(word) => {
                Ok(Self::normalized(os, architecture, variant.first().copied()))
            }
            _ => Err(PlatformError { text: text.chars().take(100).collect() }),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn texts_are_normalized() {
        for (text, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/riscv64", "linux/riscv64"),
        ] {
            assert_eq!(platform(text).to_string(), shown);
        }
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn older_variants_run_and_newer_do_not() {
        assert_eq!(platform("linux/arm/v6").distance(&platform("linux/arm/v7")), Some(1));
        assert_eq!(platform("linux/arm/v7").distance(&platform("linux/arm/v6")), None);
        assert_eq!(platform("linux/amd64").distance(&platform("linux/amd64/v3")), Some(2));
        assert_eq!(platform("linux/arm64").distance(&platform("linux/arm64/v8")), Some(0));
        assert_eq!(platform("windows/amd64").distance(&platform("linux/amd64")), None);
        assert_eq!(platform("linux/arm64").distance(&platform("linux/amd64")), None);
        assert_eq!(platform("linux/s390x/z15").distance(&platform("linux/s390x")), None);
    }
}
