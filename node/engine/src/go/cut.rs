//! Templates of the old kind, which end where the answer goes.

use super::parse::{Base, Node, Pipeline, Term};

/// The nodes up to the first that names the answer outside a condition, and that one. What stands behind it in the source goes, whatever a filling in
/// would have reached.
pub(super) fn up_to_response(nodes: &[Node]) -> Vec<Node> {
    kept(nodes, &mut false)
}

fn kept(nodes: &[Node], reached: &mut bool) -> Vec<Node> {
    let mut all = Vec::with_capacity(nodes.len());
    for node in nodes {
        if *reached {
            break;
        }
        all.push(match node {
            Node::If(branches, otherwise) => {
                let branches = branches.iter().map(|(condition, body)| (condition.clone(), kept(body, reached))).collect();
                Node::If(branches, kept(otherwise, reached))
            }
            Node::With(pipeline, body, otherwise) => Node::With(pipeline.clone(), kept(body, reached), kept(otherwise, reached)),
            Node::Range { names, over, body, otherwise } => Node::Range {
                names: names.clone(),
                over: over.clone(),
                body: kept(body, reached),
                otherwise: kept(otherwise, reached),
            },
            Node::Action(pipeline) => {
                *reached = mentions_response(pipeline);
                node.clone()
            }
            Node::Text(_) | Node::Template(..) | Node::Break | Node::Continue => node.clone(),
        });
    }
    all
}

/// Whether it names the answer, be it to print it.
fn mentions_response(pipeline: &Pipeline) -> bool {
    let of_term = |term: &Term| match &term.base {
        Base::Group(inner) => mentions_response(inner),
        Base::Dot => term.fields.iter().any(|name| name == "Response"),
        Base::Variable(_) | Base::Literal(_) | Base::Function(_) => false,
    };
    pipeline.commands.iter().flatten().any(of_term)
}
