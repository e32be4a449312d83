//! Platforms: what an image runs on, in one spelling.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ImageError;

/// An operating system and an architecture (image-spec v1.1.1 `image-index.md`), normalised: every
/// spelling of WASI is `wasi`, the architectures have Go's names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    os: String,
    architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

impl Platform {
    /// Normalises the three parts as configs and indexes hold them.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (os, architecture) = (os.to_lowercase(), architecture.to_lowercase());
        let os = match os.as_str() {
            "wasip1" | "wasip2" | "wasip3" => "wasi".to_owned(),
            "macos" => "darwin".to_owned(),
            _ => os,
        };
        let architecture = match architecture.as_str() {
            "wasm32" => "wasm".to_owned(),
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            "armhf" | "armel" => "arm".to_owned(),
            "i386" | "i686" => "386".to_owned(),
            _ => architecture,
        };
        let variant = variant
            .filter(|variant| !variant.is_empty())
            .map(str::to_lowercase)
            // Every arm64 and every amd64 has these.
            .filter(|variant| {
                !matches!(
                    (architecture.as_str(), variant.as_str()),
                    ("arm64", "v8" | "8") | ("amd64", "v1")
                )
            });
        Self {
            os,
            architecture,
            variant,
        }
    }

    /// What this program runs: programs for Linux where the kernel is one, WebAssembly elsewhere.
    #[must_use]
    pub fn host() -> Self {
        if cfg!(target_os = "linux") {
            return Self::new("linux", std::env::consts::ARCH, None);
        }
        Self::wasi()
    }

    /// WebAssembly with WASI.
    #[must_use]
    pub fn wasi() -> Self {
        Self::new("wasi", "wasm", None)
    }

    /// The operating system.
    #[must_use]
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant, where it says more than the architecture.
    #[must_use]
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// Whether it says nothing: attestations carry `unknown/unknown`.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        let says_nothing = |part: &str| part.is_empty() || part == "unknown";
        says_nothing(&self.os) && says_nothing(&self.architecture)
    }

    /// Whether something for `self` serves somebody who wants `wanted`: a variant that was not
    /// asked for is no obstacle.
    #[must_use]
    pub fn serves(&self, wanted: &Self) -> bool {
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (wanted.variant.is_none() || wanted.variant == self.variant)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = ImageError;

    /// Parses `os/architecture[/variant]`; an architecture alone means Linux, `wasi` and `wasm`
    /// alone mean `wasi/wasm`.
    fn from_str(text: &str) -> Result<Self, ImageError> {
        let invalid = || ImageError::InvalidPlatform(text.chars().take(60).collect());
        let is_word = |part: &&str| -> bool {
            !part.is_empty()
                && part.len() <= 32
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(is_word) {
            return Err(invalid());
        }
        match parts.as_slice() {
            ["wasi" | "wasm" | "wasm32"] => Ok(Self::wasi()),
            [os @ "linux"] => Ok(Self::new(os, std::env::consts::ARCH, None)),
            [architecture] => Ok(Self::new("linux", architecture, None)),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(invalid()),
        }
    }
}

impl From<&oci_spec::image::Platform> for Platform {
    fn from(platform: &oci_spec::image::Platform) -> Self {
        Self::new(
            &platform.os().to_string(),
            &platform.architecture().to_string(),
            platform.variant().as_deref(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_knows_every_spelling() {
        let table = [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/V8", "linux/arm64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("arm64", "linux/arm64"),
            ("wasi/wasm", "wasi/wasm"),
            ("wasip1/wasm32", "wasi/wasm"),
            ("Wasip1/wasm", "wasi/wasm"),
            ("wasip2/wasm", "wasi/wasm"),
            ("wasm", "wasi/wasm"),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected);
        }
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/amd 64", "../amd64x/"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
