//! Who this process is outside of the user namespace that its caller may stand in, as podman does.

use std::fs;

/// The number of this user outside.
pub(crate) fn uid() -> u32 {
    let own = rustix::process::geteuid().as_raw();
    let maps = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    outside(&maps, own).unwrap_or(own)
}

/// The id that `maps` (user_namespaces(7)) have for `id`.
fn outside(maps: &str, id: u32) -> Option<u32> {
    maps.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let offset = id.checked_sub(inside).filter(|&offset| offset < count)?;
        outside.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_who_the_maps_say() {
        assert_eq!(outside("         0          0 4294967295\n", 0), Some(0));
        let maps = "0 1000 1\n1 100000 65536\n";
        assert_eq!(outside(maps, 0), Some(1000));
        assert_eq!(outside(maps, 2), Some(100_001));
        assert_eq!(outside(maps, 70_000), None);
    }
}
