//! Templates of the old kind, which end where the answer goes.

use super::parse::{Base, Node, Pipeline, Term};

/// The nodes up to the first that prints the answer, and that one. What stands behind it in the source goes, whatever a filling in
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
                *reached = prints_response(pipeline);
                node.clone()
            }
            Node::Text(_) | Node::Template(..) | Node::Break | Node::Continue => node.clone(),
        });
    }
    all
}

fn prints_response(pipeline: &Pipeline) -> bool {
    let of_term = |term: &Term| match &term.base {
        Base::Group(inner) => prints_response(inner),
        Base::Dot | Base::Variable(_) => term.fields.first().is_some_and(|name| name == "Response"),
        Base::Literal(_) | Base::Function(_) => false,
    };
    pipeline.commands.iter().flatten().any(of_term)
}
