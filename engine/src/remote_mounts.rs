//! File systems of other hosts (NFS, CIFS): the kernel wants the server's address as a number, which
//! `mount(8)` finds for others.

use std::ffi::{CStr, CString};
use std::net::{IpAddr, ToSocketAddrs};

use crate::EngineError;

/// The option that holds the address, for both.
const ADDRESS: &CStr = c"addr";

/// The server of a source: `server:/path`, or `//server/share`.
fn server(kind: &CStr, source: &str) -> Option<String> {
    let server = match kind.to_bytes() {
        b"nfs" | b"nfs4" => source.split(":/").next()?,
        b"cifs" | b"smb3" => source.strip_prefix("//")?.split('/').next()?,
        _ => return None,
    };
    let server = server.trim_start_matches('[').trim_end_matches(']');
    (!server.is_empty()).then(|| server.to_owned())
}

/// Puts the server's address into the options of such a file system; others stay as they are.
///
/// # Errors
/// When the server's name has no address.
pub(crate) fn settle_address(
    kind: &CStr,
    source: &CStr,
    options: &mut Vec<(CString, Option<CString>)>,
) -> Result<(), EngineError> {
    if !matches!(kind.to_bytes(), b"nfs" | b"nfs4" | b"cifs" | b"smb3") {
        return Ok(());
    }
    let given = options.iter().position(|(key, _)| **key == *ADDRESS);
    let name = match given.and_then(|at| options.get(at)) {
        Some((_, value)) => value.as_ref().map(|v| v.to_string_lossy().into_owned()),
        None => server(kind, &source.to_string_lossy()),
    };
    let Some(name) = name else { return Ok(()) };
    let address = match name.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => resolve(&name)?,
    };
    let value = CString::new(address.to_string()).ok();
    match given.and_then(|at| options.get_mut(at)) {
        Some(option) => option.1 = value,
        None => options.push((ADDRESS.to_owned(), value)),
    }
    Ok(())
}

fn resolve(name: &str) -> Result<IpAddr, EngineError> {
    let found = (name, 0_u16).to_socket_addrs();
    let mut found = found.map_err(EngineError::io("find the address of the volume's server"))?;
    found
        .next()
        .map(|address| address.ip())
        .ok_or_else(|| EngineError::Unsupported(format!("cannot find the address of `{name}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(kind: &CStr, source: &CStr, options: &[(&CStr, &CStr)]) -> Vec<String> {
        let owned = |(key, value): &(&CStr, &CStr)| ((*key).to_owned(), Some((*value).to_owned()));
        let mut options = options.iter().map(owned).collect();
        settle_address(kind, source, &mut options).unwrap();
        let text = |(key, value): &(CString, Option<CString>)| {
            let value = value.clone().unwrap_or_default();
            format!("{}={}", key.to_string_lossy(), value.to_string_lossy())
        };
        options.iter().map(text).collect()
    }

    #[test]
    fn servers_are_numbers_for_the_kernel() {
        assert_eq!(settled(c"nfs", c"10.0.0.7:/export", &[]), ["addr=10.0.0.7"]);
        assert_eq!(
            settled(c"nfs4", c"[fd00::7]:/export", &[]),
            ["addr=fd00::7"]
        );
        assert_eq!(
            settled(c"cifs", c"//10.0.0.7/share", &[]),
            ["addr=10.0.0.7"]
        );
        let local = settled(
            c"nfs",
            c":/export",
            &[(c"addr", c"localhost"), (c"vers", c"4")],
        );
        assert!(
            local[0] == "addr=127.0.0.1" || local[0] == "addr=::1",
            "{local:?}"
        );
        assert_eq!(local[1], "vers=4");
        assert!(settled(c"ext4", c"/dev/sda1", &[]).is_empty());
    }
}
