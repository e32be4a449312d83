//! Image references: `[registry/]repository[:tag][@digest]`, as the distribution spec and Docker
//! spell them.
//!
//! ```text
//! reference  = [ registry "/" ] repository [ ":" tag ] [ "@" digest ]
//! registry   = ( name | IPv4 | "[" IPv6 "]" ) [ ":" port ]     has a `.`, a `:`, or is `localhost`
//! repository = component { "/" component }
//! component  = [a-z0-9]+ { ( "." | "_" | "__" | "-"+ ) [a-z0-9]+ }
//! tag        = [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127}
//! ```

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::error::ImageError;

/// The registry of names that name none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Another name of it, which old configurations still use.
const DEFAULT_REGISTRY_ALIAS: &str = "index.docker.io";
/// Where the default registry keeps repositories that consist of one component.
const OFFICIAL: &str = "library/";
/// The tag of a reference that names neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// Longest registry and repository together.
const MAX_NAME: usize = 255;
/// Longest tag (distribution-spec v1.1 `spec.md#pulling-manifests`).
const MAX_TAG: usize = 128;
/// Nothing longer is looked at: name, tag, digest and their separators.
const MAX_REFERENCE: usize = MAX_NAME + 1 + MAX_TAG + 1 + "sha256:".len() + 64;

/// The name of an image, complete: the registry is always there, and a tag, a digest or both.
///
/// ```
/// let alpine: image::Reference = "alpine".parse()?;
/// assert_eq!(alpine.to_string(), "docker.io/library/alpine:latest");
/// assert_eq!(alpine.familiar(), "alpine:latest");
/// # Ok::<(), image::ImageError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses a reference and completes what it leaves out.
    ///
    /// # Errors
    /// [`ImageError::InvalidReference`] with the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        Self::from_text(text).map_err(|reason| ImageError::InvalidReference {
            reference: text
                .chars()
                .filter(|c| !c.is_control())
                .take(MAX_REFERENCE)
                .collect(),
            reason,
        })
    }

    fn from_text(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("it is empty");
        }
        if text.len() > MAX_REFERENCE {
            return Err("it is too long");
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        let tag = tag.map(parse_tag).transpose()?;
        let (registry, repository) = parse_name(name)?;
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag,
        };
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
        })
    }

    /// The registry with its port, in lower case: `docker.io`, `localhost:5000`, `[::1]:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry: `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. There is none only where a digest was given without one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest; where it is given, it decides and the tag is only a label.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository without tag and digest: `docker.io/library/alpine`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository at this digest, without a tag.
    #[must_use]
    pub fn at_digest(&self, digest: Digest) -> Self {
        Self {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag: None,
            digest: Some(digest),
        }
    }

    /// The shortest text that means the same, apart from the tag, which is always shown:
    /// `alpine:latest`, `user/app:1`, `ghcr.io/user/app:1`.
    #[must_use]
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    /// [`Self::familiar`] without tag and digest, as the first column of `images` shows it.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        match self.repository.strip_prefix(OFFICIAL) {
            // Only a single component gets `library/` back when it is parsed.
            Some(short) if !short.contains('/') => short.to_owned(),
            // `docker.io/a.b/c` without its registry would name the registry `a.b`.
            _ if self.repository.split('/').next().is_some_and(is_registry) => self.name(),
            _ => self.repository.clone(),
        }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.iter().map(|tag| format!(":{tag}"));
        let digest = self.digest.iter().map(|digest| format!("@{digest}"));
        tag.chain(digest).collect()
    }
}

impl fmt::Display for Reference {
    /// The complete form, which parses to the same reference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        Self::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

fn parse_digest(text: &str) -> Result<Digest, &'static str> {
    Digest::parse(text)
        .map_err(|_| "the digest is not `sha256:` and 64 lower-case hexadecimal digits")
}

/// A colon after the last slash begins a tag; one before it belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') && !tag.ends_with(']') => (name, Some(tag)),
        _ => (text, None),
    }
}

fn parse_tag(tag: &str) -> Result<String, &'static str> {
    if tag.is_empty() {
        return Err("the tag is empty");
    }
    if tag.len() > MAX_TAG {
        return Err("the tag has more than 128 characters");
    }
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first = tag.bytes().next().is_some_and(word);
    if !first || !tag.bytes().all(|b| word(b) || b == b'.' || b == b'-') {
        return Err(
            "a tag consists of letters, digits, `_`, `.` and `-`, and begins with none of the last two",
        );
    }
    Ok(tag.to_owned())
}

fn parse_name(name: &str) -> Result<(String, String), &'static str> {
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => (parse_registry(first)?, rest),
        _ => (DEFAULT_REGISTRY.to_owned(), name),
    };
    check_repository(path)?;
    let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
        format!("{OFFICIAL}{path}")
    } else {
        path.to_owned()
    };
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err("the name has more than 255 characters");
    }
    if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("64 hexadecimal digits are an image identifier, not a name");
    }
    Ok((registry, repository))
}

/// What makes the first component of a name a registry.
fn is_registry(component: &str) -> bool {
    component.contains(['.', ':']) || component.eq_ignore_ascii_case("localhost")
}

fn parse_registry(text: &str) -> Result<String, &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest
                .split_once(']')
                .ok_or("the registry's `[` is not closed")?;
            address
                .parse::<Ipv6Addr>()
                .map_err(|_| "the registry is not an IPv6 address")?;
            let port = match after.strip_prefix(':') {
                None if after.is_empty() => None,
                None => return Err("the registry has characters after its `]`"),
                port => port,
            };
            (text.get(..address.len() + 2).unwrap_or_default(), port)
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            if !host.split('.').all(is_host_label) {
                return Err("the registry is not a host name or an address");
            }
            (host, port)
        }
    };
    if let Some(port) = port
        && !(port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0))
    {
        return Err("the registry's port is not a number between 1 and 65535");
    }
    let host = host.to_ascii_lowercase();
    if host == DEFAULT_REGISTRY_ALIAS && port.is_none() {
        return Ok(DEFAULT_REGISTRY.to_owned());
    }
    Ok(port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn check_repository(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("the repository is missing");
    }
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("a repository name must be in lower case");
    }
    if path.split('/').all(is_component) {
        return Ok(());
    }
    Err(
        "a repository name consists of lower-case letters and digits, with single `.`, `_`, `__` or `-` between them",
    )
}

fn is_component(component: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separator = |run: &[u8]| {
        matches!(run, b"." | b"_" | b"__") || (!run.is_empty() && run.iter().all(|b| *b == b'-'))
    };
    let bytes = component.as_bytes();
    bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes
            .split(plain)
            .all(|run| run.is_empty() || separator(run))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn reference_good_texts_have_their_complete_and_short_forms() {
        let digest = format!("sha256:{HEX}");
        let table = [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            (
                "alpine:3.20",
                "docker.io/library/alpine:3.20",
                "alpine:3.20",
            ),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            (
                "docker.io/alpine",
                "docker.io/library/alpine:latest",
                "alpine:latest",
            ),
            (
                "index.docker.io/library/a:1",
                "docker.io/library/a:1",
                "a:1",
            ),
            (
                "docker.io/library/a/b",
                "docker.io/library/a/b:latest",
                "library/a/b:latest",
            ),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "localhost",
                "docker.io/library/localhost:latest",
                "localhost:latest",
            ),
            (
                "docker.io/a.b/c",
                "docker.io/a.b/c:latest",
                "docker.io/a.b/c:latest",
            ),
            (
                "localhost:5000",
                "docker.io/library/localhost:5000",
                "localhost:5000",
            ),
            (
                "LOCALHOST:5000/x",
                "localhost:5000/x:latest",
                "localhost:5000/x:latest",
            ),
            (
                "Ghcr.IO/user/app:V1",
                "ghcr.io/user/app:V1",
                "ghcr.io/user/app:V1",
            ),
            (
                "127.0.0.1:5000/a/b__c/d--e.f",
                "127.0.0.1:5000/a/b__c/d--e.f:latest",
                "127.0.0.1:5000/a/b__c/d--e.f:latest",
            ),
            ("[::1]:5000/x:y", "[::1]:5000/x:y", "[::1]:5000/x:y"),
            ("[fe80::1]/x", "[fe80::1]/x:latest", "[fe80::1]/x:latest"),
        ];
        for (text, complete, short) in table {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), complete, "{text}");
            assert_eq!(reference.familiar(), short, "{text}");
        }
        let both = Reference::parse(&format!("host:5000/a/b:tag@{digest}")).unwrap();
        assert_eq!(both.registry(), "host:5000");
        assert_eq!(both.repository(), "a/b");
        assert_eq!(both.tag(), Some("tag"));
        assert_eq!(both.digest().unwrap().to_string(), digest);
        let only = Reference::parse(&format!("alpine@{digest}")).unwrap();
        assert_eq!(only.tag(), None);
        assert_eq!(
            only.to_string(),
            format!("docker.io/library/alpine@{digest}")
        );
        assert_eq!(
            both.at_digest(*both.digest().unwrap()).to_string(),
            format!("host:5000/a/b@{digest}")
        );
    }

    #[test]
    fn reference_bad_texts_are_refused_with_the_rule() {
        let long_name = "a".repeat(256);
        let long_tag = format!("a:{}", "t".repeat(129));
        let huge = "a".repeat(10_000);
        let table = [
            ("", "empty"),
            ("Alpine", "lower case"),
            ("Alpine/x", "lower case"),
            ("docker.io/", "missing"),
            ("a:", "tag is empty"),
            ("a:-x", "a tag consists"),
            ("a:b c", "a tag consists"),
            ("a b", "consists of"),
            ("a//b", "consists of"),
            ("/a", "consists of"),
            ("a/", "consists of"),
            ("a..b", "consists of"),
            ("a___b", "consists of"),
            ("-a", "consists of"),
            ("a/../b", "consists of"),
            ("../../etc/passwd", "registry is not"),
            ("ä", "consists of"),
            ("a@sha256:00", "digest is not"),
            ("a@sha512:00", "digest is not"),
            ("a@", "digest is not"),
            ("host:0/x", "port"),
            ("host:65536/x", "port"),
            ("host:+1/x", "port"),
            ("host:/x", "port"),
            ("-host.io/x", "registry is not"),
            ("user:pass@host.io/x", "digest is not"),
            ("https://host.io/x", "port"),
            ("[::1/x", "not closed"),
            ("[::zz]/x", "IPv6"),
            ("[::1]5000/x.y/z", "after its"),
            (HEX, "identifier"),
            (&long_name, "255"),
            (&long_tag, "128"),
            (&huge, "too long"),
        ];
        for (text, rule) in table {
            let message = Reference::parse(text).unwrap_err().to_string();
            assert!(message.contains(rule), "{text}: {message}");
            assert!(message.len() < 1_000);
        }
    }

    proptest! {
        #[test]
        fn reference_any_text_never_panics(text in ".{0,300}") {
            let parsed = Reference::parse(&text);
            if let Ok(reference) = parsed {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
            }
        }

        #[test]
        fn reference_complete_and_short_forms_parse_to_the_same(
            text in "((localhost|[a-z]{1,4}\\.io|[a-z]{1,5}|\\[::1\\])(:[1-9][0-9]{0,3})?/)?[a-z0-9]{1,5}([._-][a-z0-9]{1,3}){0,2}(/[a-z]{1,4}){0,2}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,6})?(@sha256:[0-9a-f]{64})?"
        ) {
            let parsed = Reference::parse(&text);
            if let Ok(reference) = parsed {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }
    }
}
