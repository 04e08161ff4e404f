//! Nodes and data to text.

use super::GoTemplateError;
use super::datum::Datum;
use super::functions;
use super::parse::{Base, Node, Pipeline, Term};

/// Templates that call each other.
const DEPTH_MAX: usize = 64;
/// Blocks inside blocks, those of called templates included.
const N_BLOCKS_MAX: usize = 200;
/// Bytes of all texts that are made and compared.
const WORK_BYTES_MAX: usize = 256 << 20;
/// What sorting a name among others costs beside comparing a byte.
const SORTED_BYTES: usize = 64;

/// One filling in of a template.
pub(super) struct Run<'a> {
    named: &'a [(String, Vec<Node>)],
    dates: &'a [String; 2],
    steps_left: usize,
    limit: usize,
    depth: usize,
    n_blocks: usize,
    bytes_left: usize,
    variables: Vec<(String, Datum)>,
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
            bytes_left: WORK_BYTES_MAX,
            variables: Vec::new(),
            out: String::new(),
        }
    }

    /// Fills in nodes with `data`.
    pub(super) fn execute(&mut self, nodes: &[Node], data: &Datum) -> Result<(), GoTemplateError> {
        self.variables = vec![(String::new(), data.clone())];
        self.nodes(nodes, data).map(|_| ())
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Datum) -> Result<Flow, GoTemplateError> {
        self.n_blocks += 1;
        if self.n_blocks > N_BLOCKS_MAX {
            return Err(GoTemplateError::Run(format!("blocks stand deeper in each other than {N_BLOCKS_MAX} levels")));
        }
        let flow = self.in_order(nodes, dot);
        self.n_blocks -= 1;
        flow
    }

    fn in_order(&mut self, nodes: &[Node], dot: &Datum) -> Result<Flow, GoTemplateError> {
        for node in nodes {
            self.steps_left = self.steps_left.checked_sub(1).ok_or(GoTemplateError::Steps)?;
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Datum) -> Result<Flow, GoTemplateError> {
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
                let value = pipeline.as_ref().map_or(Ok(Datum::Nothing), |pipeline| self.pipeline(pipeline, dot))?;
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

    fn scoped(&mut self, n_variables: usize, nodes: &[Node], dot: &Datum) -> Result<Flow, GoTemplateError> {
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
        dot: &Datum,
    ) -> Result<Flow, GoTemplateError> {
        let n_variables = self.variables.len();
        let items: Box<dyn Iterator<Item = (Datum, Datum)>> = match self.pipeline(over, dot)? {
            Datum::List(list) => {
                let n_items = list.items().len();
                Box::new((0..n_items).map(move |index| (index.into(), list.items()[index].clone())))
            }
            Datum::Map(entries) => {
                self.charge(SORTED_BYTES * entries.len())?;
                let mut order: Vec<usize> = (0..entries.len()).collect();
                order.sort_by(|a, b| entries[*a].0.cmp(&entries[*b].0));
                Box::new(order.into_iter().map(move |at| (Datum::Text(entries[at].0.clone()), entries[at].1.clone())))
            }
            number @ Datum::Number(_) => Box::new((0..number.as_count().unwrap_or(0)).map(|i| (i.into(), i.into()))),
            Datum::Nothing => Box::new(std::iter::empty()),
            other => return Err(GoTemplateError::Run(format!("range can't go over {}", other.kind()))),
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

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Datum) -> Result<Datum, GoTemplateError> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value, dot)?);
        }
        let value = value.unwrap_or_default();
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
    fn command(&mut self, terms: &[Term], piped: Option<Datum>, dot: &Datum) -> Result<Datum, GoTemplateError> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or(GoTemplateError::Steps)?;
        let [first, rest @ ..] = terms else { return Ok(Datum::Nothing) };
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
        if ["eq", "ne", "lt", "le", "gt", "ge"].contains(&name.as_str()) {
            let mut lens = operands.iter().map(|operand| operand.as_text().map_or(0, str::len));
            let first = lens.next().unwrap_or(0);
            self.charge(lens.map(|len| len.min(first)).sum())?;
        }
        let value = functions::call(name, &operands, self.dates).map_err(GoTemplateError::Run)?;
        // Only texts are made.
        self.charge(value.as_text().map_or(0, str::len))?;
        Ok(value)
    }

    /// Counts bytes of work.
    fn charge(&mut self, n_bytes: usize) -> Result<(), GoTemplateError> {
        let too_much = || GoTemplateError::Run(format!("it makes and compares more than {} MiB", WORK_BYTES_MAX >> 20));
        self.bytes_left = self.bytes_left.checked_sub(n_bytes).ok_or_else(too_much)?;
        Ok(())
    }

    fn term(&mut self, term: &Term, dot: &Datum) -> Result<Datum, GoTemplateError> {
        let base = match &term.base {
            Base::Dot => return fields(dot, &term.fields),
            Base::Variable(name) => {
                let known = self.variables.iter().rfind(|(known, _)| known == name);
                let (_, value) = known.ok_or_else(|| GoTemplateError::Run(format!("undefined variable \"${name}\"")))?;
                return fields(value, &term.fields);
            }
            Base::Literal(value) => value.into(),
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

/// A field of a field of a value; what is not there is nothing.
fn fields(value: &Datum, names: &[String]) -> Result<Datum, GoTemplateError> {
    let mut value = value;
    for (index, name) in names.iter().enumerate() {
        if name == "ToTypeScriptType" && index + 1 == names.len() {
            return functions::call("toTypeScriptType", std::slice::from_ref(value), &Default::default())
                .map_err(GoTemplateError::Run);
        }
        value = value.get(name).or_else(|| value.get(&snake_case(name))).unwrap_or(&Datum::Nothing);
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
