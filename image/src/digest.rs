//! Digests: SHA-256 and nothing else, parsed strictly and once (image-spec v1.1.1
//! `descriptor.md#digests`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::error::ImageError;

/// The only algorithm that is accepted. Others are registered, but nobody publishes with them, and
/// a second one doubles what has to be checked before a digest becomes a file name.
const PREFIX: &str = "sha256:";

/// The SHA-256 of some bytes: `sha256:` and 64 lower-case hexadecimal digits.
///
/// ```
/// let digest = image::Digest::of(b"");
/// assert!(digest.to_string().starts_with("sha256:e3b0c442"));
/// assert!("sha256:../../etc/passwd".parse::<image::Digest>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest that a running hash has arrived at.
    #[must_use]
    pub fn from_hasher(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// Parses `sha256:<64 lower-case hex>`.
    ///
    /// # Errors
    /// Anything else: other algorithms, upper case, other lengths.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        text.strip_prefix(PREFIX)
            .and_then(bytes_of_hex)
            .map(Self)
            .ok_or_else(|| ImageError::InvalidDigest(shorten(text)))
    }

    /// Parses the 64 digits alone, as they stand in file names.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse_hex(text: &str) -> Result<Self, ImageError> {
        bytes_of_hex(text)
            .map(Self)
            .ok_or_else(|| ImageError::InvalidDigest(shorten(text)))
    }

    /// The 64 digits without the algorithm: safe as a file name.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first twelve digits, as lists show them.
    #[must_use]
    pub fn short(&self) -> String {
        self.0.get(..6).map(hex::encode).unwrap_or_default()
    }
}

fn bytes_of_hex(text: &str) -> Option<[u8; 32]> {
    // `hex` would take upper case too, and two spellings of one digest are two cache keys.
    let lower = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let mut bytes = [0; 32];
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

/// What a message may repeat of a text that somebody else wrote.
fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
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
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        Self::parse(text)
    }
}

impl TryFrom<&oci_spec::image::Digest> for Digest {
    type Error = ImageError;

    fn try_from(digest: &oci_spec::image::Digest) -> Result<Self, ImageError> {
        Self::parse(digest.as_ref())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The digest of a layer's *uncompressed* tar stream (image-spec v1.1.1 `config.md#layer-diffid`):
/// never to be mixed up with the digest of the blob that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

impl DiffId {
    /// Parses `sha256:<64 lower-case hex>`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        Digest::parse(text).map(Self)
    }

    /// The 64 digits: the name of the layer's directory.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.hex()
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_parse_accepts_one_spelling_only() {
        let good = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(Digest::parse(&good).unwrap().to_string(), good);
        let upper = format!("sha256:{}", "0F".repeat(32));
        let short = format!("sha256:{}", &"0f".repeat(32)[1..]);
        let long = format!("sha256:{}0", "0f".repeat(32));
        let other = format!("sha512:{}", "0f".repeat(64));
        for bad in [
            upper.as_str(),
            &short,
            &long,
            &other,
            "sha256:../../../../etc/passwd",
            "sha256:",
            "",
            " sha256:00",
        ] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn digest_of_empty_is_the_known_value() {
        assert_eq!(
            Digest::of(b"").hex(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
