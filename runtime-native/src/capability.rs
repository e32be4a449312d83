//! Capabilities as bit masks: names, Docker's default set, and `--cap-add`/`--cap-drop`.
//!
//! Bit n of a mask is capability n of the kernel's `include/uapi/linux/capability.h`. The masks
//! go into the plan of a container as they are (`runtime::CapabilitySets`).

use std::str::FromStr;

use oci_spec::runtime::Capability;

/// The names without `CAP_`, at the index that is the capability's number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The word that stands for every capability in `--cap-add` and `--cap-drop`.
const ALL_WORD: &str = "ALL";

/// `CAP_DAC_READ_SEARCH`.
pub const DAC_READ_SEARCH: u64 = 1 << 2;
/// `CAP_SYS_MODULE`.
pub const SYS_MODULE: u64 = 1 << 16;
/// `CAP_SYS_RAWIO`.
pub const SYS_RAWIO: u64 = 1 << 17;
/// `CAP_SYS_CHROOT`.
pub const SYS_CHROOT: u64 = 1 << 18;
/// `CAP_SYS_PTRACE`.
pub const SYS_PTRACE: u64 = 1 << 19;
/// `CAP_SYS_PACCT`.
pub const SYS_PACCT: u64 = 1 << 20;
/// `CAP_SYS_ADMIN`.
pub const SYS_ADMIN: u64 = 1 << 21;
/// `CAP_SYS_BOOT`.
pub const SYS_BOOT: u64 = 1 << 22;
/// `CAP_SYS_NICE`.
pub const SYS_NICE: u64 = 1 << 23;
/// `CAP_SYS_TIME`.
pub const SYS_TIME: u64 = 1 << 25;
/// `CAP_SYS_TTY_CONFIG`.
pub const SYS_TTY_CONFIG: u64 = 1 << 26;
/// `CAP_SYSLOG`.
pub const SYSLOG: u64 = 1 << 34;
/// `CAP_PERFMON`.
pub const PERFMON: u64 = 1 << 38;
/// `CAP_BPF`.
pub const BPF: u64 = 1 << 39;

/// Every capability that this program knows, 0 (`CHOWN`) to 40 (`CHECKPOINT_RESTORE`).
///
/// A kernel may know fewer: mask with its bounding set before use.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// What a container has without `--cap-add`, `--cap-drop` and `--privileged`, as in Docker.
pub const DEFAULT: u64 = 1 // CHOWN
    | 1 << 1 // DAC_OVERRIDE
    | 1 << 3 // FOWNER
    | 1 << 4 // FSETID
    | 1 << 5 // KILL
    | 1 << 6 // SETGID
    | 1 << 7 // SETUID
    | 1 << 8 // SETPCAP
    | 1 << 10 // NET_BIND_SERVICE
    | 1 << 13 // NET_RAW
    | 1 << 18 // SYS_CHROOT
    | 1 << 27 // MKNOD
    | 1 << 29 // AUDIT_WRITE
    | 1 << 31; // SETFCAP

/// Why a capability was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CapabilityError {
    /// No capability has this name.
    #[error("`{0}` is not a capability")]
    Unknown(String),
}

/// Whether some kernel has a capability of this name, `CAP_` before it or not.
#[must_use]
pub fn is_known(name: &str) -> bool {
    parse(name).is_ok()
}

/// Parses a name in any case, with or without `CAP_`, into a mask of one bit; `ALL` gives
/// [`ALL`].
///
/// ```
/// use runtime_native::capability;
///
/// assert_eq!(capability::parse("cap_sys_admin").unwrap(), capability::SYS_ADMIN);
/// assert_eq!(capability::parse("all").unwrap(), capability::ALL);
/// ```
///
/// # Errors
///
/// [`CapabilityError::Unknown`] for any other word.
pub fn parse(name: &str) -> Result<u64, CapabilityError> {
    if name.eq_ignore_ascii_case(ALL_WORD) {
        return Ok(ALL);
    }
    let bare = match name.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("CAP_") => &name[4..],
        _ => name,
    };
    NAMES
        .iter()
        .position(|known| known.eq_ignore_ascii_case(bare))
        .map(|number| 1 << number)
        .ok_or_else(|| CapabilityError::Unknown(name.to_owned()))
}

/// The names of a mask's capabilities with `CAP_`, in the order of their numbers.
#[must_use]
pub fn names(mask: u64) -> Vec<String> {
    bare_names(mask).map(|name| format!("CAP_{name}")).collect()
}

/// Applies `--cap-add` and `--cap-drop` to `base` the way Docker does.
///
/// Adding `ALL` gives everything except what is dropped by its own name; else dropping `ALL`
/// gives exactly what is added; else what is dropped goes first and what is added comes after,
/// so that a capability in both lists is held.
///
/// # Errors
///
/// [`CapabilityError::Unknown`] if a word of either list is not a capability.
pub fn adjust<S: AsRef<str>>(base: u64, add: &[S], drop: &[S]) -> Result<u64, CapabilityError> {
    let (add_all, added) = parse_list(add)?;
    let (drop_all, dropped) = parse_list(drop)?;
    Ok(match (add_all, drop_all) {
        (true, _) => ALL & !dropped,
        (false, true) => added,
        (false, false) => base & !dropped | added,
    })
}

/// The capabilities of a mask as the runtime specification's type, lowest number first.
#[must_use]
pub fn to_spec(mask: u64) -> Vec<Capability> {
    bare_names(mask)
        .filter_map(|name| Capability::from_str(name).ok())
        .collect()
}

/// The mask of a set in a runtime specification.
pub fn from_spec<'a>(set: impl IntoIterator<Item = &'a Capability>) -> u64 {
    // Every capability of the type has a name in the table (tested), so none gets lost.
    set.into_iter()
        .filter_map(|one| parse(&one.to_string()).ok())
        .fold(0, |mask, bit| mask | bit)
}

fn bare_names(mask: u64) -> impl Iterator<Item = &'static str> {
    NAMES
        .iter()
        .enumerate()
        .filter(move |(number, _)| mask >> number & 1 == 1)
        .map(|(_, &n)| n)
}

/// Whether `ALL` is in the list, and the mask of its other words.
fn parse_list<S: AsRef<str>>(words: &[S]) -> Result<(bool, u64), CapabilityError> {
    let (mut all, mut mask) = (false, 0);
    for word in words {
        match parse(word.as_ref())? {
            ALL => all = true,
            bit => mask |= bit,
        }
    }
    Ok((all, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_any_spelling_gives_the_kernels_number() {
        for (name, number) in [
            ("CHOWN", 0),
            ("cap_chown", 0),
            ("Cap_Net_Raw", 13),
            ("sys_admin", 21),
            ("CAP_CHECKPOINT_RESTORE", 40),
        ] {
            assert_eq!(parse(name).unwrap(), 1 << number, "{name}");
        }
        assert_eq!(parse("All").unwrap(), ALL);
        assert_eq!(ALL.count_ones(), 41);
    }

    #[test]
    fn parse_unknown_word_is_refused_by_name() {
        for word in ["", "CAP_", "CAP_ALLES", "SYS-ADMIN", "CAP_CAP_CHOWN", "é€"] {
            assert_eq!(
                parse(word).unwrap_err().to_string(),
                format!("`{word}` is not a capability")
            );
        }
    }

    #[test]
    fn names_of_the_default_set_are_dockers_fourteen() {
        let mut names = names(DEFAULT);
        names.sort();
        let mut expected: Vec<_> = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID \
            SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
            .split_whitespace()
            .map(|name| format!("CAP_{name}"))
            .collect();
        expected.sort();
        assert_eq!(names, expected);
    }

    #[test]
    fn named_masks_match_the_table() {
        for (mask, name) in [
            (DAC_READ_SEARCH, "DAC_READ_SEARCH"),
            (SYS_MODULE, "SYS_MODULE"),
            (SYS_RAWIO, "SYS_RAWIO"),
            (SYS_CHROOT, "SYS_CHROOT"),
            (SYS_PTRACE, "SYS_PTRACE"),
            (SYS_PACCT, "SYS_PACCT"),
            (SYS_ADMIN, "SYS_ADMIN"),
            (SYS_BOOT, "SYS_BOOT"),
            (SYS_NICE, "SYS_NICE"),
            (SYS_TIME, "SYS_TIME"),
            (SYS_TTY_CONFIG, "SYS_TTY_CONFIG"),
            (SYSLOG, "SYSLOG"),
            (PERFMON, "PERFMON"),
            (BPF, "BPF"),
        ] {
            assert_eq!(parse(name).unwrap(), mask, "{name}");
        }
    }

    #[test]
    fn adjust_follows_dockers_rules_for_all() {
        let admin = SYS_ADMIN;
        let chown = 1;
        for (add, drop, expected) in [
            (vec![], vec![], DEFAULT),
            (vec!["SYS_ADMIN"], vec![], DEFAULT | admin),
            (vec![], vec!["CHOWN"], DEFAULT & !chown),
            (vec!["CHOWN"], vec!["CHOWN"], DEFAULT),
            (vec!["ALL"], vec![], ALL),
            (vec!["ALL"], vec!["CHOWN"], ALL & !chown),
            (vec![], vec!["ALL"], 0),
            (vec!["CHOWN", "cap_sys_admin"], vec!["all"], chown | admin),
            (vec!["ALL"], vec!["ALL"], ALL),
        ] {
            assert_eq!(
                adjust(DEFAULT, &add, &drop).unwrap(),
                expected,
                "+{add:?} -{drop:?}"
            );
        }
        assert!(adjust(DEFAULT, &["CHOWN"], &["NOPE"]).is_err());
    }

    #[test]
    fn spec_set_there_and_back_is_unchanged() {
        for mask in [0, DEFAULT, ALL, SYS_ADMIN | BPF] {
            let set = to_spec(mask);
            assert_eq!(set.len(), mask.count_ones() as usize);
            assert_eq!(from_spec(&set), mask);
        }
    }
}
