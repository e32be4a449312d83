//! Tokens become nodes.

use serde_json::Value;

use super::lex::{Kind, Piece, Token};
use super::{Fault, functions};

/// How deep blocks and parentheses may stand in each other.
const MAX_DEPTH: usize = 64;

/// A part of a template that makes text.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Break,
    Continue,
}

/// A block that depends on a value.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) on: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands, each of which gets the last one's value.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) at: usize,
    /// Variables that get the value.
    pub(super) variables: Vec<String>,
    /// They are there already.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
}

/// An operand, or a function with its arguments.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) first: Operand,
    pub(super) arguments: Vec<Operand>,
}

#[derive(Debug)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) what: What,
    /// Fields of it, with where each stands.
    pub(super) fields: Vec<(usize, String)>,
}

#[derive(Debug)]
pub(super) enum What {
    Dot,
    Variable(String),
    Literal(Value),
    Function(String),
    Group(Box<Pipeline>),
}

/// Makes nodes of a template's parts.
pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, Fault> {
    let mut parser = Parser {
        pieces: pieces.into_iter(),
        scopes: vec![vec![String::new()]],
        loops: 0,
        depth: 0,
    };
    let (nodes, end) = parser.list()?;
    match end {
        End::Template => Ok(nodes),
        End::Else { at, .. } => Err(Fault::new(at, "there is no block that `else` belongs to")),
        End::End { at } => Err(Fault::new(at, "there is no block that `end` belongs to")),
    }
}

/// What a list of nodes ends with.
enum End {
    Template,
    End {
        at: usize,
    },
    /// With what follows it in its action.
    Else {
        at: usize,
        rest: Vec<Token>,
    },
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    /// The variables that are known, block by block.
    scopes: Vec<Vec<String>>,
    loops: usize,
    depth: usize,
}

impl Parser {
    fn list(&mut self) -> Result<(Vec<Node>, End), Fault> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (at, tokens) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action { at, tokens } => (at, tokens),
            };
            let Some((first, rest)) = tokens.split_first() else {
                return Err(Fault::new(at, "the action is empty"));
            };
            let Kind::Word(word) = &first.kind else {
                nodes.push(Node::Print(self.whole(at, &tokens)?));
                continue;
            };
            match word.as_str() {
                "if" => nodes.push(Node::If(self.branch(at, rest, word)?)),
                "with" => nodes.push(Node::With(self.branch(at, rest, word)?)),
                "range" => nodes.push(Node::Range(self.branch(at, rest, word)?)),
                "end" => {
                    nothing_more(rest)?;
                    return Ok((nodes, End::End { at }));
                }
                "else" => {
                    let rest = rest.to_vec();
                    return Ok((nodes, End::Else { at, rest }));
                }
                "break" | "continue" => {
                    nothing_more(rest)?;
                    if self.loops == 0 {
                        return Err(Fault::new(
                            at,
                            format!("`{word}` stands outside of a range"),
                        ));
                    }
                    nodes.push(if word == "break" {
                        Node::Break
                    } else {
                        Node::Continue
                    });
                }
                "define" | "template" | "block" => {
                    let reason = format!("`{word}` is not known: a template is one piece");
                    return Err(Fault::new(at, reason));
                }
                _ => nodes.push(Node::Print(self.whole(at, &tokens)?)),
            }
        }
        Ok((nodes, End::Template))
    }

    fn deeper(&mut self, at: usize) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::new(at, "it is too deep"));
        }
        Ok(())
    }

    /// `if`, `with` or `range` up to its `end`.
    fn branch(&mut self, at: usize, tokens: &[Token], word: &str) -> Result<Branch, Fault> {
        self.deeper(at)?;
        self.scopes.push(Vec::new());
        let mut reader = Reader::new(at, tokens);
        let on = reader.pipeline(self, word == "range")?;
        reader.nothing_more()?;
        self.loops += usize::from(word == "range");
        let (body, end) = self.list()?;
        self.loops -= usize::from(word == "range");
        let otherwise = match end {
            End::End { .. } => Vec::new(),
            End::Template => return Err(Fault::new(at, format!("this `{word}` has no `end`"))),
            End::Else { at, rest } => self.otherwise(at, &rest, word)?,
        };
        self.scopes.pop();
        self.depth -= 1;
        Ok(Branch {
            on,
            body,
            otherwise,
        })
    }

    /// What follows `else`: a list, or `else if` and `else with`, which share the `end`.
    fn otherwise(&mut self, at: usize, rest: &[Token], word: &str) -> Result<Vec<Node>, Fault> {
        if let Some((first, more)) = rest.split_first() {
            return match &first.kind {
                Kind::Word(next) if next == "if" && word != "range" => {
                    Ok(vec![Node::If(self.branch(at, more, "if")?)])
                }
                Kind::Word(next) if next == "with" && word == "with" => {
                    Ok(vec![Node::With(self.branch(at, more, "with")?)])
                }
                _ => Err(Fault::new(first.at, "this cannot follow `else`")),
            };
        }
        match self.list()? {
            (nodes, End::End { .. }) => Ok(nodes),
            (_, End::Else { at, .. }) => Err(Fault::new(at, "this is a second `else`")),
            (_, End::Template) => Err(Fault::new(at, "this `else` has no `end`")),
        }
    }

    fn whole(&mut self, at: usize, tokens: &[Token]) -> Result<Pipeline, Fault> {
        let mut reader = Reader::new(at, tokens);
        let pipeline = reader.pipeline(self, false)?;
        reader.nothing_more()?;
        Ok(pipeline)
    }

    fn knows(&self, variable: &str) -> bool {
        self.scopes.iter().flatten().any(|known| known == variable)
    }

    fn declare(&mut self, variables: &[String]) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.extend_from_slice(variables);
        }
    }
}

fn nothing_more(tokens: &[Token]) -> Result<(), Fault> {
    match tokens.first() {
        Some(token) => Err(Fault::new(token.at, "nothing may stand here")),
        None => Ok(()),
    }
}

/// The tokens of one action.
struct Reader<'a> {
    tokens: &'a [Token],
    /// Where the next token is, for what is missing: the last one or the action.
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(at: usize, tokens: &'a [Token]) -> Self {
        Self { tokens, at }
    }

    fn nothing_more(&self) -> Result<(), Fault> {
        nothing_more(self.tokens)
    }

    fn peek(&self) -> Option<&'a Token> {
        self.tokens.first()
    }

    fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        self.at = first.at;
        Some(first)
    }

    fn pipeline(&mut self, parser: &mut Parser, is_range: bool) -> Result<Pipeline, Fault> {
        let at = self.peek().map_or(self.at, |token| token.at);
        let (variables, assigns) = self.variables(parser, is_range)?;
        let mut commands = vec![self.command(parser)?];
        while matches!(self.peek(), Some(token) if token.kind == Kind::Pipe) {
            self.next();
            let command = self.command(parser)?;
            if !matches!(command.first.what, What::Function(_)) && !takes_values(&command.first) {
                let reason = "what follows a pipe must be a function";
                return Err(Fault::new(command.first.at, reason));
            }
            commands.push(command);
        }
        if !assigns {
            parser.declare(&variables);
        }
        Ok(Pipeline {
            at,
            variables,
            assigns,
            commands,
        })
    }

    /// `$x :=`, `$x =`, and in a range `$i, $x :=`.
    fn variables(&mut self, parser: &Parser, is_range: bool) -> Result<(Vec<String>, bool), Fault> {
        let name = |token: &Token| match &token.kind {
            Kind::Variable(name) => Some(name.clone()),
            _ => None,
        };
        let kinds = |index: usize| self.tokens.get(index).map(|token| &token.kind);
        let (names, length) = match (self.tokens, kinds(1)) {
            ([first, ..], Some(Kind::Declare | Kind::Assign)) => (vec![name(first)], 1),
            ([first, _, second, ..], Some(Kind::Comma)) => (vec![name(first), name(second)], 3),
            _ => return Ok((Vec::new(), false)),
        };
        let Some(names) = names.into_iter().collect::<Option<Vec<String>>>() else {
            return Err(Fault::new(self.at, "only a variable can get a value"));
        };
        let operator = self.tokens.get(length);
        let assigns = match operator.map(|token| &token.kind) {
            Some(Kind::Declare) => false,
            Some(Kind::Assign) => true,
            _ => return Err(Fault::new(self.at, "after the variables := is missing")),
        };
        if names.len() > 1 && !is_range {
            return Err(Fault::new(self.at, "two variables are for a range"));
        }
        for name in &names {
            if name.is_empty() {
                return Err(Fault::new(self.at, "`$` cannot be given a value"));
            }
            if assigns && !parser.knows(name) {
                return Err(Fault::new(
                    self.at,
                    format!("there is no variable `${name}`"),
                ));
            }
        }
        for _ in 0..=length {
            self.next();
        }
        Ok((names, assigns))
    }

    fn command(&mut self, parser: &mut Parser) -> Result<Command, Fault> {
        let first = self.operand(parser)?.ok_or_else(|| {
            let at = self.peek().map_or(self.at, |token| token.at);
            Fault::new(at, "a value is missing")
        })?;
        let mut arguments = Vec::new();
        while let Some(argument) = self.operand(parser)? {
            arguments.push(argument);
        }
        if !arguments.is_empty()
            && !matches!(first.what, What::Function(_))
            && !takes_values(&first)
        {
            let at = arguments[0].at;
            return Err(Fault::new(at, "what stands before this takes no arguments"));
        }
        Ok(Command { first, arguments })
    }

    fn operand(&mut self, parser: &mut Parser) -> Result<Option<Operand>, Fault> {
        let Some(token) = self.peek() else {
            return Ok(None);
        };
        let at = token.at;
        let mut fields = Vec::new();
        let what = match &token.kind {
            Kind::Pipe | Kind::Close => return Ok(None),
            Kind::Declare | Kind::Assign | Kind::Comma => {
                return Err(Fault::new(at, "this means nothing here"));
            }
            Kind::Dot => What::Dot,
            Kind::Field(name) => {
                fields.push((at, name.clone()));
                What::Dot
            }
            Kind::Variable(name) => {
                if !parser.knows(name) {
                    return Err(Fault::new(at, format!("there is no variable `${name}`")));
                }
                What::Variable(name.clone())
            }
            Kind::Word(name) => {
                if !functions::is_known(name) {
                    return Err(Fault::new(at, format!("there is no function `{name}`")));
                }
                What::Function(name.clone())
            }
            Kind::Literal(value) => What::Literal(value.clone()),
            Kind::Open => {
                self.next();
                return self.group(parser, at).map(Some);
            }
        };
        self.next();
        let operand = Operand { at, what, fields };
        self.with_fields(operand).map(Some)
    }

    fn group(&mut self, parser: &mut Parser, at: usize) -> Result<Operand, Fault> {
        parser.deeper(at)?;
        let pipeline = self.pipeline(parser, false)?;
        if !matches!(self.next(), Some(token) if token.kind == Kind::Close) {
            return Err(Fault::new(at, "this parenthesis is not closed"));
        }
        parser.depth -= 1;
        self.with_fields(Operand {
            at,
            what: What::Group(Box::new(pipeline)),
            fields: Vec::new(),
        })
    }

    /// Takes the fields that follow without a blank.
    fn with_fields(&mut self, mut operand: Operand) -> Result<Operand, Fault> {
        while let Some(token) = self.peek().filter(|token| token.joined) {
            match (&token.kind, &operand.what) {
                (Kind::Field(_), What::Literal(_) | What::Function(_)) => {
                    return Err(Fault::new(
                        token.at,
                        "what stands before this has no fields",
                    ));
                }
                (Kind::Field(name), _) => {
                    operand.fields.push((token.at, name.clone()));
                    self.next();
                }
                (Kind::Pipe | Kind::Close | Kind::Declare | Kind::Assign | Kind::Comma, _) => break,
                _ => return Err(Fault::new(token.at, "a blank is missing")),
            }
        }
        Ok(operand)
    }
}

/// Whether it is the one method that takes arguments.
fn takes_values(operand: &Operand) -> bool {
    matches!(operand.fields.as_slice(), [(_, name)] if name == "Label")
        && matches!(operand.what, What::Dot)
}
