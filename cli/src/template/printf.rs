//! `printf`: Go's verbs for the values that JSON has.

use std::borrow::Cow;

use serde_json::Value;

use super::functions::{plain, shortened};

/// Of a width or a precision.
const MAX_WIDTH: usize = 4096;

/// A verb with what stands between it and the percent sign.
#[derive(Debug, Default)]
struct Verb {
    left: bool,
    zero: bool,
    plus: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
}

/// Formats values. An error names the verb.
pub(super) fn printf(format: &str, values: &[Cow<'_, Value>]) -> Result<String, String> {
    let mut text = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '-' => verb.left = true,
                '0' => verb.zero = true,
                '+' => verb.plus = true,
                '#' => verb.alternate = true,
                ' ' => {}
                _ => break,
            }
            chars.next();
        }
        verb.width = digits(&mut chars)?.unwrap_or(0);
        if chars.next_if_eq(&'.').is_some() {
            verb.precision = Some(digits(&mut chars)?.unwrap_or(0));
        }
        let letter = chars.next().ok_or("printf: the format ends with %")?;
        if letter == '%' {
            text.push('%');
            continue;
        }
        let value = values
            .next()
            .ok_or_else(|| format!("printf: there is no value for %{letter}"))?;
        let body = verb.body(letter, value)?;
        text.push_str(&verb.padded(&body, value));
    }
    match values.next() {
        Some(_) => Err("printf: there are more values than verbs".to_owned()),
        None => Ok(text),
    }
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        let digit = usize::try_from(digit).unwrap_or(0);
        let next = number.unwrap_or(0_usize) * 10 + digit;
        if next > MAX_WIDTH {
            return Err(format!("printf: no width is above {MAX_WIDTH}"));
        }
        number = Some(next);
    }
    Ok(number)
}

impl Verb {
    fn body(&self, letter: char, value: &Value) -> Result<String, String> {
        let misfit = || {
            let value = shortened(&plain(value));
            format!("printf: %{letter} does not fit `{value}`")
        };
        let integer = || value.as_i64().ok_or_else(misfit);
        Ok(match letter {
            'v' if self.alternate => value.to_string(),
            'v' => self.signed(value, plain(value)),
            's' => self.cut(plain(value)),
            'q' => match value {
                Value::String(text) => Value::from(self.cut(text.clone())).to_string(),
                _ => return Err(misfit()),
            },
            't' => value.as_bool().ok_or_else(misfit)?.to_string(),
            'd' => self.signed(value, integer()?.to_string()),
            'b' => format!("{:b}", integer()?),
            'o' => format!("{:o}", integer()?),
            'c' => u32::try_from(integer()?)
                .ok()
                .and_then(char::from_u32)
                .ok_or_else(misfit)?
                .to_string(),
            'x' | 'X' => {
                let hex = match value {
                    Value::String(text) => text.bytes().map(|b| format!("{b:02x}")).collect(),
                    _ => format!("{:x}", integer()?),
                };
                let hex = if self.alternate {
                    format!("0x{hex}")
                } else {
                    hex
                };
                if letter == 'X' {
                    hex.to_uppercase()
                } else {
                    hex
                }
            }
            'f' | 'e' | 'g' => {
                let number = value
                    .as_f64()
                    .filter(|_| value.is_f64())
                    .ok_or_else(misfit)?;
                let precision = self.precision.unwrap_or(6);
                let text = match letter {
                    'f' => format!("{number:.precision$}"),
                    'e' => exponential(number, precision),
                    _ => number.to_string(),
                };
                self.signed(value, text)
            }
            _ => return Err(format!("printf: the verb %{letter} is not known")),
        })
    }

    fn signed(&self, value: &Value, text: String) -> String {
        if self.plus && value.is_number() && !text.starts_with('-') {
            return format!("+{text}");
        }
        text
    }

    fn cut(&self, text: String) -> String {
        match self.precision {
            Some(length) => text.chars().take(length).collect(),
            None => text,
        }
    }

    fn padded(&self, body: &str, value: &Value) -> String {
        let missing = self.width.saturating_sub(body.chars().count());
        if self.left {
            return format!("{body}{}", " ".repeat(missing));
        }
        if !(self.zero && value.is_number()) {
            return format!("{}{body}", " ".repeat(missing));
        }
        let digits = body.trim_start_matches(['+', '-']);
        let sign = body.get(..body.len() - digits.len()).unwrap_or_default();
        format!("{sign}{}{digits}", "0".repeat(missing))
    }
}

/// Go writes an exponent with a sign and two digits.
fn exponential(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(rest) => ('-', rest),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}
