//! `--format` of commands that list things: Docker's `table`, `json` and templates, over one record
//! a line.

use serde_json::{Map, Value};

use crate::render;
use crate::template::{Filling, Template, TemplateError};

/// A field that a list can show, and the column's name.
pub(crate) type Field = (&'static str, &'static str);

/// A line of a list: its fields as texts, and its labels where it has some.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) fields: Map<String, Value>,
    pub(crate) labels: Option<Value>,
}

impl Row {
    /// A line without labels; a field that holds control characters is made harmless.
    pub(crate) fn new<const N: usize>(fields: [(&str, String); N]) -> Self {
        let fields = fields
            .into_iter()
            .map(|(name, text)| (name.to_owned(), Value::from(render::clean(&text))));
        Self {
            fields: fields.collect(),
            labels: None,
        }
    }

    /// The same line with labels.
    pub(crate) fn with_labels<'a>(
        mut self,
        labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        let map: Map<String, Value> = labels
            .into_iter()
            .map(|(key, value)| (key.clone(), render::clean(value).into()))
            .collect();
        let pairs: Vec<String> = map
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        self.fields
            .insert("Labels".to_owned(), pairs.join(",").into());
        self.labels = Some(Value::Object(map));
        self
    }

    fn text(&self, field: &str) -> String {
        match self.fields.get(field) {
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        }
    }
}

/// How a list is printed.
#[derive(Debug)]
pub(crate) enum Format {
    /// The command's own columns.
    Columns,
    /// One JSON object a line.
    Json,
    /// A template for each line, with a line of names above and the columns aligned.
    Table(Template),
    /// A template for each line.
    Plain(Template),
}

impl Format {
    /// Reads `--format`; nothing means the command's own columns.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, TemplateError> {
        let Some(text) = text else {
            return Ok(Self::Columns);
        };
        let words = text.trim();
        if words == "json" {
            return Ok(Self::Json);
        }
        if words.is_empty() || words == "table" {
            return Ok(Self::Columns);
        }
        // As Docker does it for lists: these two are written as the shell leaves them.
        let unescape = |text: &str| text.replace("\\t", "\t").replace("\\n", "\n");
        match text.strip_prefix("table ") {
            Some(rest) => Ok(Self::Table(Template::parse(&unescape(rest.trim()))?)),
            None => Ok(Self::Plain(Template::parse(&unescape(text))?)),
        }
    }

    /// Whether a list shows a field; one that need not be found out is left empty.
    pub(crate) fn shows(&self, shown: &[&str], field: &str) -> bool {
        !matches!(self, Self::Columns) || shown.contains(&field)
    }

    /// Prints a list. `known` are all fields with their columns' names, `shown` those that the
    /// command shows by itself.
    pub(crate) fn print(
        &self,
        known: &[Field],
        shown: &[&str],
        rows: &[Row],
    ) -> anyhow::Result<()> {
        render::print_lines(&self.lines(known, shown, rows)?)?;
        Ok(())
    }

    /// The lines that [`Self::print`] prints.
    pub(crate) fn lines(
        &self,
        known: &[Field],
        shown: &[&str],
        rows: &[Row],
    ) -> anyhow::Result<Vec<String>> {
        let name = |field: &str| {
            let known = known.iter().find(|(own, _)| *own == field);
            known.map_or("", |(_, name)| name).to_owned()
        };
        match self {
            Self::Columns => {
                let header = shown.iter().map(|field| name(field)).collect();
                let cells = |row: &Row| shown.iter().map(|field| row.text(field)).collect();
                Ok(aligned(
                    &std::iter::once(header)
                        .chain(rows.iter().map(cells))
                        .collect::<Vec<_>>(),
                ))
            }
            Self::Json => rows
                .iter()
                .map(|row| Ok(serde_json::to_string(&row.fields)?))
                .collect(),
            Self::Plain(template) => {
                let lines = rows.iter().map(|row| fill(template, row));
                Ok(lines.collect::<Result<_, _>>()?)
            }
            Self::Table(template) => {
                let header = Row {
                    fields: known
                        .iter()
                        .map(|(field, name)| ((*field).to_owned(), Value::from(*name)))
                        .collect(),
                    labels: Some(Value::Null),
                };
                let first = template.fill(
                    &Value::Object(header.fields),
                    header.labels.as_ref(),
                    Filling::Header,
                )?;
                let mut lines = vec![first.to_uppercase()];
                for row in rows {
                    lines.push(fill(template, row)?);
                }
                let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
                Ok(aligned(&lines.iter().map(cells).collect::<Vec<_>>()))
            }
        }
    }
}

fn fill(template: &Template, row: &Row) -> Result<String, TemplateError> {
    let record = Value::Object(row.fields.clone());
    template.fill(&record, row.labels.as_ref(), Filling::Record)
}

/// Columns, each as wide as its widest cell, three blanks between.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(index) {
                Some(widest) => *widest = (*widest).max(width),
                None => widths.push(width),
            }
        }
    }
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell:<width$}"))
                .collect();
            cells.join("   ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const KNOWN: [Field; 3] = [
        ("ID", "CONTAINER ID"),
        ("Names", "NAMES"),
        ("Labels", "LABELS"),
    ];

    fn lines(format: Option<&str>) -> Vec<String> {
        let labels = BTreeMap::from([("com.a".to_owned(), "b".to_owned())]);
        let rows = [
            Row::new([("ID", "1".to_owned()), ("Names", "web".to_owned())]).with_labels(&labels),
            Row::new([("ID", "22".to_owned()), ("Names", "d\x1bb".to_owned())])
                .with_labels(&BTreeMap::new()),
        ];
        let format = Format::parse(format).unwrap();
        format.lines(&KNOWN, &["ID", "Names"], &rows).unwrap()
    }

    #[test]
    fn own_columns_are_the_default_and_the_bare_table() {
        let expected = [
            "CONTAINER ID   NAMES",
            "1              web",
            "22             d\u{fffd}b",
        ];
        assert_eq!(lines(None), expected);
        assert_eq!(lines(Some("table")), expected);
    }

    #[test]
    fn table_of_a_template_has_a_header_and_columns() {
        let expected = ["NAMES   A", "web     b", "d\u{fffd}b"];
        assert_eq!(
            lines(Some(r#"table {{.Names}}\t{{.Label "com.a"}}"#)),
            expected
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        assert_eq!(
            lines(Some("json"))[0],
            r#"{"ID":"1","Labels":"com.a=b","Names":"web"}"#
        );
    }

    #[test]
    fn template_without_a_table_is_filled_in_for_each() {
        assert_eq!(
            lines(Some(r"{{.ID}}\t{{.Names}}")),
            ["1\tweb", "22\td\u{fffd}b"]
        );
        let format = Format::parse(Some("{{.Nope}}")).unwrap();
        let rows = [Row::new([("ID", "1".to_owned())])];
        assert!(format.lines(&KNOWN, &["ID"], &rows).is_err());
    }
}
