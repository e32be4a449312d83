//! Nodes are filled in with a record.

use std::borrow::Cow;

use serde_json::Value;

use super::functions::{self, is_true, plain};
use super::parse::{Branch, Command, Node, Operand, Pipeline, What};
use super::{Fault, Filling};

/// How much a template may make: far more than a person reads.
const MAX_TEXT: usize = 16 << 20;

/// How many parts may be filled in: ranges in ranges multiply.
const MAX_STEPS: usize = 2_000_000;

type Item<'a> = Cow<'a, Value>;

/// Fills in a whole template.
pub(super) fn fill(
    nodes: &[Node],
    record: &Value,
    labels: Option<&Value>,
    filling: Filling,
) -> Result<String, Fault> {
    let mut run = Run {
        labels,
        filling,
        variables: vec![("", Cow::Borrowed(record))],
        steps: 0,
        text: String::new(),
    };
    run.list(nodes, &Cow::Borrowed(record))?;
    Ok(run.text)
}

/// What a list of nodes says about the range that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

/// What the dot is inside of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dot {
    /// What it is outside.
    Stays,
    /// What the block depends on.
    IsTheValue,
}

struct Run<'a> {
    labels: Option<&'a Value>,
    filling: Filling,
    variables: Vec<(&'a str, Item<'a>)>,
    steps: usize,
    text: String,
}

impl<'a> Run<'a> {
    fn step(&mut self, at: usize) -> Result<(), Fault> {
        self.steps += 1;
        if self.steps > MAX_STEPS || self.text.len() > MAX_TEXT {
            return Err(Fault::new(at, "the template makes too much"));
        }
        Ok(())
    }

    fn list(&mut self, nodes: &'a [Node], dot: &Item<'a>) -> Result<Flow, Fault> {
        for node in nodes {
            self.step(0)?;
            let flow = match node {
                Node::Text(text) => {
                    self.text.push_str(text);
                    Flow::On
                }
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.text.push_str(&plain(&value));
                    } else {
                        self.give(pipeline, &[value]);
                    }
                    Flow::On
                }
                Node::If(branch) => self.choose(branch, dot, Dot::Stays)?,
                Node::With(branch) => self.choose(branch, dot, Dot::IsTheValue)?,
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    /// Declares the pipeline's variables, or changes them.
    fn give(&mut self, pipeline: &'a Pipeline, values: &[Item<'a>]) {
        for (name, value) in pipeline.variables.iter().zip(values) {
            let known = self.variables.iter_mut().rev().find(|(own, _)| own == name);
            match known {
                Some((_, old)) if pipeline.assigns => *old = value.clone(),
                _ => self.variables.push((name.as_str(), value.clone())),
            }
        }
    }

    /// `if` or `with`.
    fn choose(&mut self, branch: &'a Branch, dot: &Item<'a>, inside: Dot) -> Result<Flow, Fault> {
        let mark = self.variables.len();
        let value = self.pipeline(&branch.on, dot)?;
        self.give(&branch.on, std::slice::from_ref(&value));
        let flow = if !is_true(&value) {
            self.list(&branch.otherwise, dot)
        } else if inside == Dot::IsTheValue {
            self.list(&branch.body, &value)
        } else {
            self.list(&branch.body, dot)
        };
        self.variables.truncate(mark);
        flow
    }

    fn range(&mut self, branch: &'a Branch, dot: &Item<'a>) -> Result<Flow, Fault> {
        let mark = self.variables.len();
        let over = self.pipeline(&branch.on, dot)?;
        let pairs = pairs(&over)
            .ok_or_else(|| Fault::new(branch.on.at, "a range needs a list, a map or a number"))?;
        if pairs.is_empty() {
            return self.list(&branch.otherwise, dot);
        }
        for (key, value) in pairs {
            self.step(branch.on.at)?;
            let (key, value) = (Cow::Owned(key), Cow::Owned(value));
            match branch.on.variables.len() {
                2 => self.give(&branch.on, &[key, value.clone()]),
                _ => self.give(&branch.on, std::slice::from_ref(&value)),
            }
            let flow = self.list(&branch.body, &value)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Item<'a>) -> Result<Item<'a>, Fault> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        last.ok_or_else(|| Fault::new(pipeline.at, "a value is missing"))
    }

    fn command(
        &mut self,
        command: &'a Command,
        dot: &Item<'a>,
        piped: Option<Item<'a>>,
    ) -> Result<Item<'a>, Fault> {
        self.step(command.first.at)?;
        match &command.first.what {
            What::Function(name) => self.call(name, command, dot, piped),
            _ if piped.is_some() || !command.arguments.is_empty() => {
                let mut arguments = self.arguments(command, dot, piped)?;
                match (arguments.pop(), arguments.is_empty()) {
                    (Some(key), true) => self.label(command.first.at, &key),
                    _ => Err(Fault::new(command.first.at, "Label takes one key")),
                }
            }
            _ => self.operand(&command.first, dot),
        }
    }

    fn arguments(
        &mut self,
        command: &'a Command,
        dot: &Item<'a>,
        piped: Option<Item<'a>>,
    ) -> Result<Vec<Item<'a>>, Fault> {
        let mut values = Vec::with_capacity(command.arguments.len() + 1);
        for argument in &command.arguments {
            values.push(match &argument.what {
                What::Function(name) if argument.fields.is_empty() => {
                    self.bounded(argument.at, functions::call(name, &[]))?
                }
                _ => self.operand(argument, dot)?,
            });
        }
        values.extend(piped);
        Ok(values)
    }

    fn call(
        &mut self,
        name: &str,
        command: &'a Command,
        dot: &Item<'a>,
        piped: Option<Item<'a>>,
    ) -> Result<Item<'a>, Fault> {
        let at = command.first.at;
        if name == "and" || name == "or" {
            return self.and_or(name == "or", command, dot, piped);
        }
        let arguments = self.arguments(command, dot, piped)?;
        if self.filling == Filling::Header {
            let text = arguments.into_iter().find(|value| value.is_string());
            return Ok(text.unwrap_or_else(|| Cow::Owned(Value::from(""))));
        }
        self.bounded(at, functions::call(name, &arguments))
    }

    /// The first argument that decides, or the last one; what follows is not looked at.
    fn and_or(
        &mut self,
        decides: bool,
        command: &'a Command,
        dot: &Item<'a>,
        piped: Option<Item<'a>>,
    ) -> Result<Item<'a>, Fault> {
        let mut last = None;
        for argument in &command.arguments {
            let value = self.operand(argument, dot)?;
            if is_true(&value) == decides {
                return Ok(value);
            }
            last = Some(value);
        }
        piped
            .or(last)
            .ok_or_else(|| Fault::new(command.first.at, "it needs an argument"))
    }

    fn bounded(&self, at: usize, result: Result<Value, String>) -> Result<Item<'a>, Fault> {
        match result {
            Ok(Value::String(text)) if text.len() > MAX_TEXT => {
                Err(Fault::new(at, "the template makes too much"))
            }
            Ok(value) => Ok(Cow::Owned(value)),
            Err(reason) => Err(Fault::new(at, reason)),
        }
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Item<'a>) -> Result<Item<'a>, Fault> {
        let mut value = match &operand.what {
            What::Dot => dot.clone(),
            What::Variable(name) => self
                .variables
                .iter()
                .rev()
                .find(|(own, _)| own == name)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| Fault::new(operand.at, format!("there is no variable `${name}`")))?,
            What::Literal(value) => Cow::Borrowed(value),
            What::Function(name) => {
                let value = functions::call(name, &[]);
                self.bounded(operand.at, value)?
            }
            What::Group(pipeline) => self.pipeline(pipeline, dot)?,
        };
        for (at, name) in &operand.fields {
            value = self.field(value, *at, name)?;
        }
        Ok(value)
    }

    fn field(&self, of: Item<'a>, at: usize, name: &str) -> Result<Item<'a>, Fault> {
        let missing = || Fault::new(at, format!("there is no field `{name}`"));
        match (of, self.filling) {
            (Cow::Borrowed(Value::Object(fields)), _) => {
                fields.get(name).map(Cow::Borrowed).ok_or_else(missing)
            }
            (Cow::Owned(Value::Object(mut fields)), _) => {
                fields.remove(name).map(Cow::Owned).ok_or_else(missing)
            }
            (header, Filling::Header) if header.is_string() => Ok(header),
            (value, _) if value.is_null() => {
                let reason = format!("there is no field `{name}`: what it would be of is empty");
                Err(Fault::new(at, reason))
            }
            _ => Err(missing()),
        }
    }

    /// `.Label "key"`.
    fn label(&self, at: usize, key: &Value) -> Result<Item<'a>, Fault> {
        let Value::String(key) = key else {
            return Err(Fault::new(at, "the key of a label is a text"));
        };
        let Some(labels) = self.labels else {
            return Err(Fault::new(at, "there is no field `Label`"));
        };
        if self.filling == Filling::Header {
            let last = key.rsplit('.').next().unwrap_or(key);
            return Ok(Cow::Owned(last.replace(['-', '_'], " ").into()));
        }
        let value = labels.get(key).cloned();
        Ok(Cow::Owned(value.unwrap_or_else(|| Value::from(""))))
    }
}

/// What a range goes over: a list by index, a map by key, a number from 0 on.
fn pairs(over: &Value) -> Option<Vec<(Value, Value)>> {
    Some(match over {
        Value::Null => Vec::new(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| (Value::from(index), item.clone()))
            .collect(),
        Value::Object(fields) => {
            let mut pairs: Vec<_> = fields.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            pairs
                .into_iter()
                .map(|(key, value)| (Value::from(key.as_str()), value.clone()))
                .collect()
        }
        Value::Number(count) => {
            let count = count.as_i64()?;
            let count = count.clamp(0, i64::try_from(MAX_STEPS).ok()?);
            (0..count)
                .map(|n| (Value::from(n), Value::from(n)))
                .collect()
        }
        _ => return None,
    })
}
