//! Subnets: an address and how many of its bits are fixed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::NetworkError;

/// A subnet; the bits behind its prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: IpAddr,
    prefix: u8,
}

/// An address as a number, and how many bits its family has.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn address(value: u128, width: u8) -> IpAddr {
    if width == 32 {
        Ipv4Addr::from_bits(u32::try_from(value & u128::from(u32::MAX)).unwrap_or(0)).into()
    } else {
        Ipv6Addr::from_bits(value).into()
    }
}

impl Subnet {
    /// The subnet of an address.
    ///
    /// # Errors
    /// When the prefix is longer than the address.
    pub fn of(of: IpAddr, prefix: u8) -> Result<Self, NetworkError> {
        let (value, width) = bits(of);
        if prefix > width {
            return Err(NetworkError::BadSubnet(format!("{of}/{prefix}")));
        }
        let mask = host_mask(width, prefix);
        Ok(Self {
            base: address(value & !mask, width),
            prefix,
        })
    }

    /// The first address.
    #[must_use]
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// How many bits are fixed.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.base.is_ipv4()
    }

    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        let ((base, width), (value, other_width)) = (bits(self.base), bits(other));
        width == other_width && value & !host_mask(width, self.prefix) == base
    }

    /// Whether any address lies in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// The address with this number, 0 being the first; none behind the last.
    #[must_use]
    pub fn nth(&self, number: u128) -> Option<IpAddr> {
        let (base, width) = bits(self.base);
        (number <= host_mask(width, self.prefix)).then(|| address(base | number, width))
    }

    /// The number of an address that lies in it.
    #[must_use]
    pub fn number_of(&self, other: IpAddr) -> u128 {
        let (value, width) = bits(other);
        value & host_mask(width, self.prefix)
    }

    /// The number of the last address.
    #[must_use]
    pub fn last(&self) -> u128 {
        host_mask(bits(self.base).1, self.prefix)
    }

    /// The bytes of the first address, and of the first one behind it: zeros after the last of all.
    #[must_use]
    pub(crate) fn range(&self) -> (Vec<u8>, Vec<u8>) {
        let (base, width) = bits(self.base);
        let end = (base | self.last()).wrapping_add(1);
        (octets(self.base), octets(address(end, width)))
    }
}

fn host_mask(width: u8, prefix: u8) -> u128 {
    let free = u32::from(width - prefix.min(width));
    1_u128.checked_shl(free).map_or(u128::MAX, |size| size - 1)
}

/// The bytes of an address.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

impl FromStr for Subnet {
    type Err = NetworkError;

    /// `ADDRESS/PREFIX`; the address may be any of the subnet's.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let bad = || NetworkError::BadSubnet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| digits).ok_or_else(bad)?;
        Self::of(address.parse().map_err(|_| bad())?, prefix).map_err(|_| bad())
    }
}

impl TryFrom<String> for Subnet {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn parsed_subnet_has_zero_host_bits() {
        assert_eq!(subnet("10.1.2.3/24").to_string(), "10.1.2.0/24");
        assert_eq!(subnet("fd00::5/64").to_string(), "fd00::/64");
        assert_eq!(subnet("1.2.3.4/0").to_string(), "0.0.0.0/0");
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "x/8",
            "::/129",
            "::/+1",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn overlap_is_containment_either_way() {
        assert!(subnet("10.0.0.0/8").overlaps(&subnet("10.1.0.0/16")));
        assert!(subnet("10.1.0.0/16").overlaps(&subnet("10.0.0.0/8")));
        assert!(!subnet("10.1.0.0/16").overlaps(&subnet("10.2.0.0/16")));
        assert!(!subnet("0.0.0.0/0").overlaps(&subnet("::/0")));
    }

    #[test]
    fn addresses_are_numbered_from_the_first() {
        let net = subnet("192.168.7.0/30");
        assert_eq!(net.nth(1), Some("192.168.7.1".parse().unwrap()));
        assert_eq!((net.last(), net.nth(4)), (3, None));
        assert_eq!(net.number_of("192.168.7.2".parse().unwrap()), 2);
        assert_eq!(subnet("255.255.255.0/24").range().1, [0, 0, 0, 0]);
    }
}
