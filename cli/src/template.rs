//! The part of Go's templates that `--format` understands: text, and `{{.Path.To.Field}}` or
//! `{{json .Path}}` in it. Anything else is refused by name.

use serde_json::Value;

use crate::render::Usage;

/// A template.
#[derive(Debug)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, Usage> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after
                .split_once("}}")
                .ok_or_else(|| Usage(format!("cannot use --format `{text}`: a }}}} is missing")))?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(field(action.trim()).ok_or_else(|| {
                Usage(format!(
                    "cannot use `{{{{{action}}}}}` in --format: only fields such as .Config.Env are known, and json before them"
                ))
            })?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { parts })
    }

    /// Fills it in.
    pub(crate) fn render(&self, record: &Value) -> Result<String, Usage> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Field { path, json } => {
                    let mut value = record;
                    for key in path {
                        value = value.get(key).ok_or_else(|| {
                            Usage(format!(
                                "cannot use `.{}` in --format: there is no `{key}`",
                                path.join(".")
                            ))
                        })?;
                    }
                    text.push_str(&if *json {
                        value.to_string()
                    } else {
                        plain(value)
                    });
                }
            }
        }
        Ok(text)
    }
}

fn field(action: &str) -> Option<Part> {
    let (json, path) = match action.strip_prefix("json ") {
        Some(path) => (true, path.trim()),
        None => (false, action),
    };
    let path = path.strip_prefix('.')?;
    let keys: Vec<String> = path
        .split('.')
        .filter(|_| !path.is_empty())
        .map(str::to_owned)
        .collect();
    let is_key = |key: &String| {
        !key.is_empty()
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    keys.iter()
        .all(is_key)
        .then_some(Part::Field { path: keys, json })
}

/// A value as Go prints it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // What is null in these records is an empty list or map.
        Value::Null => "[]".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{key}:{}", plain(value)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_printed_as_go_prints_them() {
        let record = serde_json::json!({
            "Id": "x", "State": { "Pid": 7, "Running": true }, "Env": ["A=b", "C"], "Cmd": null,
        });
        let render = |text: &str| Template::parse(text).unwrap().render(&record).unwrap();
        assert_eq!(render("{{.Id}}: {{ .State.Pid }}"), "x: 7");
        assert_eq!(
            render("{{.Env}} {{.Cmd}} {{.State.Running}}"),
            "[A=b C] [] true"
        );
        assert_eq!(render("{{json .Env}}"), r#"["A=b","C"]"#);
        assert!(render("{{.State}}").starts_with("map["));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "{{range .Env}}",
            "{{.A",
            "{{len .Env}}",
            "{{.A..B}}",
            "{{}}",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        let template = Template::parse("{{.Nope}}").unwrap();
        assert!(template.render(&Value::Null).is_err());
    }
}
