//! Versions of the API, and what changed with which: the one table of gates.

use std::fmt;

/// A version of the API, `1.minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(u16);

/// The newest version.
pub(crate) const NEWEST: ApiVersion = ApiVersion(56);
/// The oldest version that is answered.
pub(crate) const OLDEST: ApiVersion = ApiVersion(40);

/// Logs and streams say in their content type whether they are framed.
pub(crate) const MULTIPLEXED_TYPE: ApiVersion = ApiVersion(42);
/// Annotations of a container.
pub(crate) const ANNOTATIONS: ApiVersion = ApiVersion(43);
/// A container is created on several networks; hardware addresses belong to endpoints.
pub(crate) const MANY_ENDPOINTS: ApiVersion = ApiVersion(44);
/// A part of a volume is mounted.
pub(crate) const VOLUME_SUBPATH: ApiVersion = ApiVersion(45);
/// Images are mounted.
pub(crate) const IMAGE_MOUNT: ApiVersion = ApiVersion(48);
/// `NetworkSettings` has no addresses of the default network; events have no fields of earlier
/// versions; a container has no hardware address of its own.
pub(crate) const NO_LEGACY: ApiVersion = ApiVersion(52);
/// `system df` shows totals by kind.
pub(crate) const DISK_USAGE_BY_KIND: ApiVersion = ApiVersion(52);
/// `system df` shows nothing else.
pub(crate) const NO_LEGACY_DISK_USAGE: ApiVersion = ApiVersion(53);

impl ApiVersion {
    /// Reads `1.NN`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let minor = text.strip_prefix("1.")?;
        minor.parse().ok().map(Self)
    }

    /// Whether it is answered; the text of the refusal when not.
    pub(crate) fn check(self) -> Result<(), String> {
        if self > NEWEST {
            return Err(format!(
                "client version {self} is too new. Maximum supported API version is {NEWEST}"
            ));
        }
        if self < OLDEST {
            return Err(format!(
                "client version {self} is too old. Minimum supported API version is {OLDEST}, please upgrade your client to a newer version"
            ));
        }
        Ok(())
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_outside_are_refused_in_dockers_words() {
        let refusal = |text| ApiVersion::parse(text).unwrap().check().unwrap_err();
        assert_eq!(
            refusal("1.99"),
            "client version 1.99 is too new. Maximum supported API version is 1.56"
        );
        assert!(refusal("1.20").starts_with("client version 1.20 is too old. Minimum"));
        assert!(ApiVersion::parse("1.44").unwrap().check().is_ok());
        assert_eq!(ApiVersion::parse("2.0"), None);
    }
}
