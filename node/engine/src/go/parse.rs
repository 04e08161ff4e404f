//! Tokens to nodes.

use serde_json::Value;

use super::lex::{Token, tokens};

/// Nesting of blocks and parentheses.
const DEPTH_MAX: usize = 64;

/// A part of a template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    /// Prints what the pipeline gives, unless it declares or assigns.
    Action(Pipeline),
    If(Vec<(Pipeline, Vec<Node>)>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range {
        names: Vec<String>,
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Template(String, Option<Pipeline>),
    Break,
    Continue,
}

/// Commands joined by `|`, whose result may go to a variable.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    /// The variable, and whether it is new.
    pub(super) to: Option<(String, bool)>,
    pub(super) commands: Vec<Vec<Term>>,
}

/// An operand, with the fields taken of it.
#[derive(Debug, Clone)]
pub(super) struct Term {
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Literal(Value),
    Function(String),
    Group(Box<Pipeline>),
}

type Defined = Vec<(String, Vec<Node>)>;

/// The nodes of a source and of what it defines.
pub(super) fn parse(source: &str) -> Result<(Vec<Node>, Defined), String> {
    let mut parser = Parser { tokens: tokens(source)?, at: 0, named: Vec::new(), depth: 0 };
    let (nodes, end) = parser.nodes()?;
    match end {
        None => Ok((nodes, parser.named)),
        Some(word) => Err(format!("unexpected {{{{{word}}}}}")),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    named: Defined,
    depth: usize,
}

impl Parser {
    fn next(&mut self) -> Option<Token> {
        self.at += 1;
        self.tokens.get(self.at - 1).cloned()
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(format!("nested deeper than {DEPTH_MAX} levels")) } else { Ok(()) }
    }

    /// Nodes up to the end of the source, or to an `end` or `else`, which is returned.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<String>), String> {
        let mut nodes = Vec::new();
        loop {
            match self.next() {
                None => return Ok((nodes, None)),
                Some(Token::Text(text)) => nodes.push(Node::Text(text)),
                Some(_) => match self.peek().cloned() {
                    Some(Token::Word(word)) if word == "end" || word == "else" => {
                        self.at += 1;
                        if word == "end" {
                            self.close("end")?;
                        }
                        return Ok((nodes, Some(word)));
                    }
                    Some(Token::Word(word)) => nodes.extend(self.keyword(&word)?),
                    _ => nodes.push(Node::Action(self.closed_pipeline()?)),
                },
            }
        }
    }

    fn keyword(&mut self, word: &str) -> Result<Option<Node>, String> {
        if !["if", "with", "range", "define", "block", "template", "break", "continue"].contains(&word) {
            return Ok(Some(Node::Action(self.closed_pipeline()?)));
        }
        self.at += 1;
        self.deeper()?;
        let node = match word {
            "if" => Some(self.branches()?),
            "with" => {
                let pipeline = self.closed_pipeline()?;
                let (body, otherwise) = self.block("with")?;
                Some(Node::With(pipeline, body, otherwise))
            }
            "range" => Some(self.range()?),
            "define" => {
                let name = self.name()?;
                self.close("define")?;
                let (body, _) = self.block("define")?;
                self.named.push((name, body));
                None
            }
            "block" => {
                let name = self.name()?;
                let pipeline = self.closed_pipeline()?;
                let (body, _) = self.block("block")?;
                self.named.push((name.clone(), body));
                Some(Node::Template(name, Some(pipeline)))
            }
            "template" => {
                let name = self.name()?;
                let pipeline = if self.peek() == Some(&Token::Close) { None } else { Some(self.pipeline()?) };
                self.close("template")?;
                Some(Node::Template(name, pipeline))
            }
            word => {
                self.close(word)?;
                Some(if word == "break" { Node::Break } else { Node::Continue })
            }
        };
        self.depth -= 1;
        Ok(node)
    }

    fn name(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Token::Literal(Value::String(name))) => Ok(name),
            _ => Err("a template's name must be a string".into()),
        }
    }

    fn close(&mut self, after: &str) -> Result<(), String> {
        match self.next() {
            Some(Token::Close) => Ok(()),
            other => Err(format!("unexpected {} after {after}", told(other.as_ref()))),
        }
    }

    /// A body up to its `end`, and what stands after an `else`.
    fn block(&mut self, of: &str) -> Result<(Vec<Node>, Vec<Node>), String> {
        let (body, end) = self.nodes()?;
        match end.as_deref() {
            Some("end") => Ok((body, Vec::new())),
            Some(_) => {
                self.close("else")?;
                let (otherwise, end) = self.nodes()?;
                if end.as_deref() == Some("end") { Ok((body, otherwise)) } else { Err(format!("{of} has no end")) }
            }
            None => Err(format!("{of} has no end")),
        }
    }

    fn branches(&mut self) -> Result<Node, String> {
        let mut branches = Vec::new();
        loop {
            let condition = self.closed_pipeline()?;
            let (body, end) = self.nodes()?;
            branches.push((condition, body));
            match end.as_deref() {
                Some("end") => return Ok(Node::If(branches, Vec::new())),
                Some(_) if self.peek() == Some(&Token::Word("if".into())) => self.at += 1,
                Some(_) => {
                    self.close("else")?;
                    let (otherwise, end) = self.nodes()?;
                    return if end.as_deref() == Some("end") {
                        Ok(Node::If(branches, otherwise))
                    } else {
                        Err("if has no end".into())
                    };
                }
                None => return Err("if has no end".into()),
            }
        }
    }

    fn range(&mut self) -> Result<Node, String> {
        let (start, mut names) = (self.at, Vec::new());
        while let Some(Token::Variable(name)) = self.peek().cloned() {
            self.at += 1;
            names.push(name);
            match self.next() {
                Some(Token::Mark(",")) if names.len() == 1 => {}
                Some(Token::Mark(":=" | "=")) => break,
                _ => {
                    // It ranges over a variable.
                    self.at = start;
                    names.clear();
                    break;
                }
            }
        }
        let over = self.closed_pipeline()?;
        let (body, otherwise) = self.block("range")?;
        Ok(Node::Range { names, over, body, otherwise })
    }

    fn closed_pipeline(&mut self) -> Result<Pipeline, String> {
        let pipeline = self.pipeline()?;
        self.close("command")?;
        Ok(pipeline)
    }

    fn pipeline(&mut self) -> Result<Pipeline, String> {
        let mut to = None;
        if let (Some(Token::Variable(name)), Some(Token::Mark(mark @ (":=" | "=")))) = (self.peek(), self.tokens.get(self.at + 1))
        {
            to = Some((name.clone(), *mark == ":="));
            self.at += 2;
        }
        let mut commands = vec![self.command()?];
        while self.peek() == Some(&Token::Mark("|")) {
            self.at += 1;
            commands.push(self.command()?);
        }
        Ok(Pipeline { to, commands })
    }

    fn command(&mut self) -> Result<Vec<Term>, String> {
        let mut terms = Vec::new();
        while let Some(base) = self.base()? {
            let mut fields = Vec::new();
            if let Base::Dot = base
                && let Some(Token::Field(name)) = self.tokens.get(self.at - 1).cloned()
            {
                fields.push(name);
            }
            while let Some(Token::FieldOf(name)) = self.peek().cloned() {
                self.at += 1;
                fields.push(name);
            }
            terms.push(Term { base, fields });
        }
        if terms.is_empty() { Err(format!("missing value for command, found {}", told(self.peek()))) } else { Ok(terms) }
    }

    /// The start of an operand, if one follows.
    fn base(&mut self) -> Result<Option<Base>, String> {
        let base = match self.peek().cloned() {
            Some(Token::Dot | Token::Field(_)) => Base::Dot,
            Some(Token::Variable(name)) => Base::Variable(name),
            Some(Token::Literal(value)) => Base::Literal(value),
            Some(Token::Word(name)) if super::functions::NAMES.contains(&name.as_str()) => Base::Function(name),
            Some(Token::Word(name)) => return Err(format!("function {name:?} not defined")),
            Some(Token::Mark("(")) => {
                self.at += 1;
                self.deeper()?;
                let pipeline = self.pipeline()?;
                self.depth -= 1;
                if self.peek() != Some(&Token::Mark(")")) {
                    return Err("unclosed left paren".into());
                }
                Base::Group(Box::new(pipeline))
            }
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(base))
    }
}

fn told(token: Option<&Token>) -> String {
    match token {
        None => "end of template".into(),
        Some(Token::Close) => "\"}}\"".into(),
        Some(Token::Open) => "\"{{\"".into(),
        Some(Token::Word(word) | Token::Text(word)) => format!("{word:?}"),
        Some(Token::Variable(name)) => format!("\"${name}\""),
        Some(Token::Field(name) | Token::FieldOf(name)) => format!("\".{name}\""),
        Some(Token::Dot) => "\".\"".into(),
        Some(Token::Literal(value)) => value.to_string(),
        Some(Token::Mark(mark)) => format!("{mark:?}"),
    }
}
