//! Changes to an image config as Dockerfile instructions, for `import` and `commit`.

use serde_json::{Map, Value};

use crate::config::{Healthcheck, RunConfig};
use crate::error::ImageError;

/// Applies one instruction: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `HEALTHCHECK`, `LABEL`, `ONBUILD`,
/// `STOPSIGNAL`, `USER`, `VOLUME` or `WORKDIR`.
///
/// ```
/// let mut config = image::RunConfig::default();
/// image::apply_change(&mut config, r#"CMD ["sh", "-l"]"#)?;
/// assert_eq!(config.cmd, Some(vec!["sh".to_owned(), "-l".to_owned()]));
/// # Ok::<(), image::ImageError>(())
/// ```
///
/// # Errors
/// [`ImageError::InvalidChange`] for other instructions and malformed arguments.
pub fn apply_change(config: &mut RunConfig, change: &str) -> Result<(), ImageError> {
    apply(config, change).map_err(|reason| ImageError::InvalidChange {
        change: change.chars().take(200).collect(),
        reason,
    })
}

fn apply(config: &mut RunConfig, change: &str) -> Result<(), &'static str> {
    let (instruction, rest) = change
        .trim()
        .split_once(char::is_whitespace)
        .ok_or("it has no arguments")?;
    let rest = rest.trim();
    match instruction.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => {
            for (name, value) in pairs(rest)? {
                let prefix = format!("{name}=");
                config.env.retain(|known| !known.starts_with(&prefix));
                config.env.push(prefix + &value);
            }
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        "LABEL" => config.labels.extend(pairs(rest)?),
        "EXPOSE" => {
            for word in words(rest)? {
                config.exposed_ports.insert(port(&word)?, empty());
            }
        }
        "VOLUME" => {
            let paths = match json_list(rest) {
                Some(paths) => paths,
                None => words(rest)?,
            };
            for path in paths {
                if !path.starts_with('/') {
                    return Err("a volume must be an absolute path");
                }
                config.volumes.insert(path, empty());
            }
        }
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => config.working_dir = workdir(&config.working_dir, rest),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "ONBUILD" => config
            .on_build
            .get_or_insert_default()
            .push(rest.to_owned()),
        _ => return Err("the instruction is not one that changes a config"),
    }
    Ok(())
}

fn empty() -> Value {
    Value::Object(Map::new())
}

fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

/// A command in exec form, or in shell form for the shell.
fn command(text: &str) -> Vec<String> {
    json_list(text).unwrap_or_else(|| {
        ["/bin/sh", "-c", text]
            .into_iter()
            .map(ToOwned::to_owned)
            .collect()
    })
}

/// `[--interval=…] … CMD command`, or `NONE`.
fn healthcheck(mut text: &str) -> Result<Healthcheck, &'static str> {
    let mut check = Healthcheck::default();
    while let Some(option) = text.strip_prefix("--") {
        let (option, rest) = option
            .split_once(char::is_whitespace)
            .ok_or("a health check ends with CMD or NONE")?;
        text = rest.trim_start();
        let (name, value) = option
            .split_once('=')
            .ok_or("an option is `--name=value`")?;
        let time = || nanoseconds(value).ok_or("a time is written as 30s or 1m30s");
        match name {
            "interval" => check.interval = time()?,
            "timeout" => check.timeout = time()?,
            "start-period" => check.start_period = time()?,
            "start-interval" => check.start_interval = time()?,
            "retries" => check.retries = value.parse().map_err(|_| "retries is a number")?,
            _ => return Err("a health check has no such option"),
        }
    }
    let (kind, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    check.test = match (kind.to_ascii_uppercase().as_str(), rest.trim()) {
        ("NONE", "") => vec!["NONE".to_owned()],
        ("CMD", command) if !command.is_empty() => match json_list(command) {
            Some(list) => [vec!["CMD".to_owned()], list].concat(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => return Err("a health check is CMD with a command, or NONE"),
    };
    Ok(check)
}

/// A length of time as Go writes it.
fn nanoseconds(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 6] = [
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let mut total = 0_i64;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let end = tail.find(|c: char| c.is_ascii_digit());
        let (unit, tail) = tail.split_at(end.unwrap_or(tail.len()));
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let part = number.parse::<i64>().ok()?.checked_mul(*factor)?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

fn workdir(old: &str, new: &str) -> String {
    if new.starts_with('/') {
        return new.to_owned();
    }
    format!("{}/{new}", old.trim_end_matches('/'))
}

fn port(word: &str) -> Result<String, &'static str> {
    let (number, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let bounds: Vec<_> = number.splitn(2, '-').collect();
    let valid = bounds
        .iter()
        .all(|bound| bound.parse::<u16>().is_ok_and(|port| port > 0));
    if !valid || !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err("a port is `number[/tcp|/udp|/sctp]`");
    }
    Ok(format!("{number}/{protocol}"))
}

/// `name=value name=value`, or the old form `name value`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let words = words(text)?;
    let is_old_form = words.first().is_some_and(|first| !first.contains('='));
    if is_old_form {
        let (name, value) = text
            .split_once(char::is_whitespace)
            .ok_or("a pair is `name=value`")?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err("a pair is `name=value`"),
        })
        .collect()
}

/// Splits at blanks outside quotes; a backslash takes the next character literally, inside single
/// quotes it is a backslash.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                let next = characters.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthcheck_has_options_and_a_command_in_either_form() {
        let check = |text: &str| {
            let mut config = RunConfig::default();
            apply(&mut config, &format!("HEALTHCHECK {text}")).map(|()| config.healthcheck.unwrap())
        };
        let one = check("--interval=1m30s --retries=2 CMD [\"/check\", \"-q\"]").unwrap();
        assert_eq!(one.test, ["CMD", "/check", "-q"]);
        assert_eq!((one.interval, one.retries), (90_000_000_000, 2));
        assert_eq!(
            check("CMD curl -f x").unwrap().test,
            ["CMD-SHELL", "curl -f x"]
        );
        assert_eq!(check("NONE").unwrap().test, ["NONE"]);
        for bad in [
            "",
            "CMD",
            "--interval=soon CMD x",
            "--colour=blue CMD x",
            "NONE x",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn apply_change_knows_the_forms_of_docker() {
        let mut config = RunConfig::default();
        for change in [
            "CMD echo hi",
            r#"ENTRYPOINT ["/bin/a", "b c"]"#,
            r#"ENV A=1 B="two words" C=three\ words"#,
            "env A 1 and more",
            "LABEL x=y",
            "EXPOSE 80 53/udp 8000-8010",
            "VOLUME /data /more",
            r#"VOLUME ["/json"]"#,
            "USER 1000:1000",
            "WORKDIR /srv",
            "WORKDIR app",
            "STOPSIGNAL SIGINT",
        ] {
            apply_change(&mut config, change).unwrap();
        }
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", "echo hi"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/a", "b c"]);
        assert_eq!(config.env, ["B=two words", "C=three words", "A=1 and more"]);
        assert_eq!(config.labels["x"], "y");
        let ports: Vec<_> = config.exposed_ports.keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000-8010/tcp"]);
        assert_eq!(config.volumes.len(), 3);
        assert_eq!(config.working_dir, "/srv/app");
    }

    #[test]
    fn apply_change_refuses_what_is_no_change() {
        let mut config = RunConfig::default();
        for change in [
            "",
            "CMD",
            "RUN ls",
            "ENV =x",
            "ENV A='x",
            "EXPOSE 0",
            "EXPOSE 80/icmp",
            "VOLUME relative",
        ] {
            let error = apply_change(&mut config, change).unwrap_err();
            assert!(
                matches!(error, ImageError::InvalidChange { .. }),
                "{change}"
            );
        }
    }
}
