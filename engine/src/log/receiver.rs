//! Log drivers that send lines elsewhere: syslog, Fluentd, the journal.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use runtime::{LogAddress, LogDestination, LogPlan, LogReceiver, SyslogFormat};
use state::ContainerConfig;

use super::LogOptions;
use super::options::refuse;
use crate::EngineError;
use crate::start::c_path;

/// Where programs of this host log, and where the journal listens.
const DEV_LOG: &str = "/dev/log";
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Ports where none is given.
const SYSLOG_PORT: u16 = 514;
const FLUENTD_PORT: u16 = 24_224;

/// How long a server may take to answer before a container is not started.
const PATIENCE: Duration = Duration::from_secs(3);

/// Facilities by number (RFC 5424, table 1), as syslog.h names them.
const FACILITIES: [&str; 24] = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "security",
    "console",
    "solaris-cron",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
];

impl LogOptions {
    /// Who is sent lines marked with `tag`, if anybody is.
    pub(super) fn receiver(
        &self,
        tag: String,
        attributes: BTreeMap<String, String>,
        config: Option<&ContainerConfig>,
    ) -> Result<Option<LogReceiver>, EngineError> {
        let destination = match self.driver.as_str() {
            "syslog" => self.syslog()?,
            "fluentd" => self.fluentd()?,
            "journald" => LogDestination::Journald,
            _ => return Ok(None),
        };
        let of =
            |get: fn(&ContainerConfig) -> &String| config.map(get).cloned().unwrap_or_default();
        Ok(Some(LogReceiver {
            destination,
            tag,
            id: of(|config| &config.id),
            name: of(|config| &config.name),
            image: of(|config| &config.image),
            attributes,
        }))
    }

    fn syslog(&self) -> Result<LogDestination, EngineError> {
        let format = self.one_of(
            "syslog-format",
            &["", "rfc3164", "rfc5424", "rfc5424micro"],
            "",
        )?;
        let text = self.option("syslog-facility").unwrap_or("daemon");
        let facility = FACILITIES.iter().position(|name| *name == text);
        let facility = facility
            .and_then(|number| u8::try_from(number).ok())
            .or_else(|| text.parse().ok().filter(|number| *number < 24));
        let wanted = "a facility, such as daemon or local3, or its number";
        let address = match self.option("syslog-address") {
            None => LogAddress::UnixDatagram(c_path(Path::new(DEV_LOG))?),
            Some(text) => self.address("syslog-address", text, SYSLOG_PORT)?,
        };
        Ok(LogDestination::Syslog {
            address,
            facility: facility.ok_or_else(|| self.bad("syslog-facility", wanted))?,
            format: match format {
                "rfc3164" => SyslogFormat::Rfc3164,
                "rfc5424" => SyslogFormat::Rfc5424,
                "rfc5424micro" => SyslogFormat::Rfc5424Micro,
                _ => SyslogFormat::Local,
            },
            hostname: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        })
    }

    fn fluentd(&self) -> Result<LogDestination, EngineError> {
        let truth = ["true", "false"];
        self.one_of("fluentd-async", &truth, "false")?;
        let exact = self.one_of("fluentd-sub-second-precision", &truth, "false")? == "true";
        let text = self.option("fluentd-address").unwrap_or("127.0.0.1");
        let text = if text.contains("://") {
            text.to_owned()
        } else {
            format!("tcp://{text}")
        };
        match self.address("fluentd-address", &text, FLUENTD_PORT)? {
            LogAddress::Udp(_) | LogAddress::UnixDatagram(_) => {
                Err(self.bad("fluentd-address", "HOST[:PORT], tcp:// or unix://"))
            }
            address => Ok(LogDestination::Fluentd {
                address,
                sub_second: exact,
            }),
        }
    }

    fn address(&self, key: &str, text: &str, port: u16) -> Result<LogAddress, EngineError> {
        let wanted = "tcp://HOST[:PORT], udp://HOST[:PORT], unix://PATH or unixgram://PATH";
        let bad = || self.bad(key, wanted);
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        if rest.is_empty() {
            return Err(bad());
        }
        let path = || match rest.starts_with('/') {
            true => c_path(Path::new(rest)),
            false => Err(bad()),
        };
        let with_port = || {
            let bare = rest.rsplit_once(':').is_none() || rest.ends_with(']');
            if bare {
                format!("{rest}:{port}")
            } else {
                rest.to_owned()
            }
        };
        match scheme {
            "tcp" => Ok(LogAddress::Tcp(with_port())),
            "udp" => Ok(LogAddress::Udp(with_port())),
            "unix" => Ok(LogAddress::UnixStream(path()?)),
            "unixgram" => Ok(LogAddress::UnixDatagram(path()?)),
            "tcp+tls" => Err(refuse(format!(
                "cannot use --log-opt {key}=`{text}`: TLS is not spoken to syslog servers; use a local relay"
            ))),
            _ => Err(bad()),
        }
    }

    /// Whether somebody is there to be sent lines: a container whose log goes nowhere is not started.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) fn check_receiver(&self, plan: &LogPlan) -> Result<(), EngineError> {
        let Some(receiver) = &plan.receiver else {
            return Ok(());
        };
        if self.option("fluentd-async") == Some("true") {
            return Ok(());
        }
        let nobody = |what: &str, why: &str| {
            refuse(format!(
                "cannot use the log driver {}: {what}: {why}",
                self.driver
            ))
        };
        let is_there = |path: &Path| match path.exists() {
            true => Ok(()),
            false => Err(nobody(
                &format!("`{}`", path.display()),
                "there is no such socket",
            )),
        };
        match &receiver.destination {
            LogDestination::Journald => is_there(Path::new(JOURNAL)),
            LogDestination::Syslog { address, .. } | LogDestination::Fluentd { address, .. } => {
                match address {
                    LogAddress::UnixStream(path) | LogAddress::UnixDatagram(path) => {
                        is_there(Path::new(&*path.to_string_lossy()))
                    }
                    LogAddress::Tcp(text) => {
                        connect(text).map_err(|error| nobody(text, &error.to_string()))
                    }
                    LogAddress::Udp(text) => match text.to_socket_addrs() {
                        Ok(_) => Ok(()),
                        Err(error) => Err(nobody(text, &error.to_string())),
                    },
                }
            }
        }
    }
}

fn connect(text: &str) -> std::io::Result<()> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in text.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(driver: &str, pairs: &[(&str, &str)]) -> LogOptions {
        LogOptions {
            driver: driver.to_owned(),
            options: pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn addresses_have_ports_and_bad_ones_are_refused() {
        let address = |text: &str| {
            options("syslog", &[])
                .address("syslog-address", text, 514)
                .ok()
        };
        assert_eq!(
            address("tcp://h"),
            Some(LogAddress::Tcp("h:514".to_owned()))
        );
        assert_eq!(
            address("udp://[::1]"),
            Some(LogAddress::Udp("[::1]:514".to_owned()))
        );
        assert_eq!(
            address("udp://[::1]:7"),
            Some(LogAddress::Udp("[::1]:7".to_owned()))
        );
        for bad in ["h:514", "http://h", "tcp://", "unix://x", "tcp+tls://h"] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }

    #[test]
    fn facility_is_a_name_or_a_number() {
        let facility = |text: &str| match options("syslog", &[("syslog-facility", text)]).syslog() {
            Ok(LogDestination::Syslog { facility, .. }) => Some(facility),
            _ => None,
        };
        assert_eq!(facility("local3"), Some(19));
        assert_eq!(facility("3"), Some(3));
        assert_eq!(facility("24"), None);
        assert_eq!(facility("nobody"), None);
    }
}
