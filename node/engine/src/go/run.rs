//! Nodes and data to text.

use serde_json::Value;

use super::GoTemplateError;
use super::functions;
use super::parse::{Base, Node, Pipeline, Term};

/// Templates that call each other.
const DEPTH_MAX: usize = 64;
/// Blocks inside blocks, those of called templates included.
const N_BLOCKS_MAX: usize = 200;
/// Bytes of all values that are taken, made or kept; a template of a real model takes some times its messages.
const VALUES_BYTES_MAX: usize = 256 << 20;
/// What a value takes beside its texts.
const VALUE_BYTES: usize = 72;

/// One filling in of a template.
pub(super) struct Run<'a> {
    named: &'a [(String, Vec<Node>)],
    dates: &'a [String; 2],
    steps_left: usize,
    limit: usize,
    depth: usize,
    n_blocks: usize,
    bytes_left: usize,
    variables: Vec<(String, Value)>,
    pub(super) out: String,
}

/// How a list of nodes ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl<'a> Run<'a> {
    pub(super) fn new(named: &'a [(String, Vec<Node>)], dates: &'a [String; 2], n_steps: usize, limit: usize) -> Run<'a> {
        Run {
            named,
            dates,
            steps_left: n_steps,
            limit,
            depth: 0,
            n_blocks: 0,
            bytes_left: VALUES_BYTES_MAX,
            variables: Vec::new(),
            out: String::new(),
        }
    }

    /// Fills in nodes with `data`.
    pub(super) fn execute(&mut self, nodes: &[Node], data: &Value) -> Result<(), GoTemplateError> {
        self.variables = vec![(String::new(), data.clone())];
        self.nodes(nodes, data).map(|_| ())
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, GoTemplateError> {
        self.n_blocks += 1;
        if self.n_blocks > N_BLOCKS_MAX {
            return Err(GoTemplateError::Run(format!("blocks stand deeper in each other than {N_BLOCKS_MAX} levels")));
        }
        let flow = self.in_order(nodes, dot);
        self.n_blocks -= 1;
        flow
    }

    fn in_order(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, GoTemplateError> {
        for node in nodes {
            self.steps_left = self.steps_left.checked_sub(1).ok_or(GoTemplateError::Steps)?;
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, GoTemplateError> {
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.to.is_none() {
                    self.write(&functions::shown(&value))?;
                }
            }
            Node::If(branches, otherwise) => {
                let n_variables = self.variables.len();
                for (condition, body) in branches {
                    if functions::truth(&self.pipeline(condition, dot)?) {
                        return self.scoped(n_variables, body, dot);
                    }
                }
                return self.scoped(n_variables, otherwise, dot);
            }
            Node::With(pipeline, body, otherwise) => {
                let n_variables = self.variables.len();
                let value = self.pipeline(pipeline, dot)?;
                let (nodes, dot) = if functions::truth(&value) { (body, &value) } else { (otherwise, dot) };
                return self.scoped(n_variables, nodes, dot);
            }
            Node::Range { names, over, body, otherwise } => return self.range(names, over, body, otherwise, dot),
            Node::Template(name, pipeline) => {
                let value = pipeline.as_ref().map_or(Ok(Value::Null), |pipeline| self.pipeline(pipeline, dot))?;
                let named = self.named;
                let (_, nodes) = named
                    .iter()
                    .rfind(|(known, _)| known == name)
                    .ok_or_else(|| GoTemplateError::Run(format!("template {name:?} not defined")))?;
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(GoTemplateError::Run(format!("templates call each other deeper than {DEPTH_MAX} levels")));
                }
                // Its root is what it was given, and it sees no variable of its caller.
                let outer = std::mem::replace(&mut self.variables, vec![(String::new(), value.clone())]);
                self.nodes(nodes, &value)?;
                self.variables = outer;
                self.depth -= 1;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn scoped(&mut self, n_variables: usize, nodes: &[Node], dot: &Value) -> Result<Flow, GoTemplateError> {
        let flow = self.nodes(nodes, dot)?;
        self.variables.truncate(n_variables);
        Ok(flow)
    }

    fn range(
        &mut self,
        names: &[String],
        over: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, GoTemplateError> {
        let n_variables = self.variables.len();
        let items: Box<dyn Iterator<Item = (Value, Value)>> = match self.pipeline(over, dot)? {
            Value::Array(items) => Box::new(items.into_iter().enumerate().map(|(index, item)| (Value::from(index), item))),
            Value::Object(map) => {
                let mut items: Vec<(String, Value)> = map.into_iter().collect();
                items.sort_by(|a, b| a.0.cmp(&b.0));
                Box::new(items.into_iter().map(|(key, item)| (Value::from(key), item)))
            }
            Value::Number(n) => Box::new((0..n.as_u64().unwrap_or(0)).map(|i| (Value::from(i), Value::from(i)))),
            Value::Null => Box::new(std::iter::empty()),
            other => return Err(GoTemplateError::Run(format!("range can't iterate over {other}"))),
        };
        let mut items = items.peekable();
        if items.peek().is_none() {
            return self.scoped(n_variables, otherwise, dot);
        }
        for (key, item) in items {
            self.steps_left = self.steps_left.checked_sub(1).ok_or(GoTemplateError::Steps)?;
            match names {
                [] => {}
                [one] => self.variables.push((one.clone(), item.clone())),
                [first, second, ..] => {
                    self.variables.extend([(first.clone(), key), (second.clone(), item.clone())]);
                }
            }
            let flow = self.scoped(n_variables, body, &item)?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, GoTemplateError> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value, dot)?);
        }
        let value = value.unwrap_or_default();
        if pipeline.to.is_some() {
            self.charge(&value)?;
        }
        match &pipeline.to {
            Some((name, true)) => self.variables.push((name.clone(), value.clone())),
            Some((name, false)) => {
                let known = self.variables.iter_mut().rfind(|(known, _)| known == name);
                known.ok_or_else(|| GoTemplateError::Run(format!("undefined variable \"${name}\"")))?.1 = value.clone();
            }
            None => {}
        }
        Ok(value)
    }

    /// A function with its operands, the last of which may come through the pipe, or an operand alone.
    fn command(&mut self, terms: &[Term], piped: Option<Value>, dot: &Value) -> Result<Value, GoTemplateError> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or(GoTemplateError::Steps)?;
        let [first, rest @ ..] = terms else { return Ok(Value::Null) };
        let Base::Function(name) = &first.base else {
            return match (rest, piped) {
                ([], None) => self.term(first, dot),
                _ => Err(GoTemplateError::Run("can't give an argument to a value".into())),
            };
        };
        // These two stop at the first operand that decides.
        if name == "and" || name == "or" {
            let mut value = piped.clone().unwrap_or_default();
            for term in rest {
                value = self.term(term, dot)?;
                if functions::truth(&value) != (name == "and") {
                    return Ok(value);
                }
            }
            return Ok(piped.unwrap_or(value));
        }
        let mut operands = rest.iter().map(|term| self.term(term, dot)).collect::<Result<Vec<_>, _>>()?;
        operands.extend(piped);
        // What is put together is at most as large as what it is put together from, with escapes.
        if ["print", "println", "printf", "json"].contains(&name.as_str()) {
            operands.iter().try_for_each(|operand| self.charge(operand))?;
        }
        let value = functions::call(name, &operands, self.dates).map_err(GoTemplateError::Run)?;
        self.charge(&value)?;
        Ok(value)
    }

    /// Counts the bytes of a value.
    fn charge(&mut self, value: &Value) -> Result<(), GoTemplateError> {
        let too_much = || GoTemplateError::Run(format!("its values take more than {} MiB", VALUES_BYTES_MAX >> 20));
        self.bytes_left = self.bytes_left.checked_sub(size(value)).ok_or_else(too_much)?;
        Ok(())
    }

    fn term(&mut self, term: &Term, dot: &Value) -> Result<Value, GoTemplateError> {
        let base = match &term.base {
            Base::Dot => {
                let value = fields(dot, &term.fields)?;
                self.charge(&value)?;
                return Ok(value);
            }
            Base::Variable(name) => {
                let known = self.variables.iter().rfind(|(known, _)| known == name);
                let value = &known.ok_or_else(|| GoTemplateError::Run(format!("undefined variable \"${name}\"")))?.1;
                let value = fields(value, &term.fields)?;
                self.charge(&value)?;
                return Ok(value);
            }
            Base::Literal(value) => value.clone(),
            Base::Function(name) => functions::call(name, &[], self.dates).map_err(GoTemplateError::Run)?,
            Base::Group(pipeline) => self.pipeline(pipeline, dot)?,
        };
        fields(&base, &term.fields)
    }

    fn write(&mut self, text: &str) -> Result<(), GoTemplateError> {
        if self.out.len() + text.len() > self.limit {
            return Err(GoTemplateError::Output { limit: self.limit });
        }
        self.out.push_str(text);
        Ok(())
    }
}

/// Bytes of a value, about.
fn size(value: &Value) -> usize {
    VALUE_BYTES
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(size).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| key.len() + size(value)).sum(),
            _ => 0,
        }
}

/// A field of a field of a value; what is not there is nothing.
fn fields(value: &Value, names: &[String]) -> Result<Value, GoTemplateError> {
    let mut value = value;
    for (index, name) in names.iter().enumerate() {
        if name == "ToTypeScriptType" && index + 1 == names.len() {
            return functions::call("toTypeScriptType", std::slice::from_ref(value), &Default::default())
                .map_err(GoTemplateError::Run);
        }
        value = match value.get(name) {
            Some(value) => value,
            None => value.get(snake_case(name)).unwrap_or(&Value::Null),
        };
    }
    Ok(value.clone())
}

/// A Go name as the data has it: `ToolCallID` is `tool_call_id`.
fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = !c.is_uppercase();
        out.extend(c.to_lowercase());
    }
    out
}
