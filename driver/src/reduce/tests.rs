use super::*;
use brolga_ir::graph::Graph;

fn graph(text: &str) -> Graph {
    Graph::parse(text, &|_| None).unwrap_or_else(|e| panic!("{e}"))
}

/// Twelve operations in a row, with one `softmax` among them, and outputs beside it.
const CHAIN: &str = "graph @chain(%0 x: f32[n, 16], %1 y: f32[n, 16], %2 z: f32[n, 16]) symbols(n) {
  %3 = add(%0, %1)
  %4 = relu(%3)
  %5 = mul(%4, %2)
  %6 = tanh(%5)
  %7 = softmax{axis=1 zeros=never}(%6)
  %8 = add(%7, %0)
  %9 = relu(%8)
  %10 = neg(%9)
  %11 = mul(%10, %10)
  %12 = tanh(%11)
  return a = %12, b = %4, c = %9
}";

fn has(g: &Graph, op: &str) -> bool {
    g.nodes.iter().any(|n| n.op.name() == op)
}

#[test]
fn what_is_not_needed_goes() {
    let g = graph(CHAIN);
    let case = Case { graph: g, inputs: None };
    let mut shown = vec![];
    let (best, tried) = reduce(case, &mut |c| Ok(has(&c.graph, "softmax")), &mut |c, _| {
        shown.push(Weight::of(&c.graph));
        Ok(())
    })
    .expect("nothing fails");
    let g = &best.graph;
    g.verify().expect("it is valid");
    let w = Weight::of(g);
    assert_eq!((w.nodes, w.outputs, w.inputs, w.symbols), (1, 1, 0, 0), "{g}");
    // Both extents of the operand and of the result are 1.
    assert_eq!(w.extents, 4, "{g}");
    assert!(shown.windows(2).all(|w| w[1] < w[0]), "{shown:?}");
    assert_eq!(tried.taken, shown.len());
}

#[test]
fn two_nodes_far_apart_stay_both() {
    let g = graph(CHAIN);
    let first =
        |c: &Case| Ok(has(&c.graph, "softmax") && c.graph.nodes.iter().filter(|n| n.op.name() == "tanh").count() == 2);
    let (best, _) = reduce(Case { graph: g, inputs: None }, &mut { first }, &mut |_, _| Ok(())).expect("nothing fails");
    assert_eq!(best.graph.nodes.len(), 3, "{}", best.graph);
}

/// Where inputs are told, cut values keep what they were.
#[test]
fn inputs_keep_their_values() {
    let g = graph(CHAIN);
    let numbers = |k: usize| Tensor::from_f32(&[2, 16], &(0..32).map(|i| (i * k) as f32 / 64.0).collect::<Vec<_>>());
    let inputs = vec![numbers(1), numbers(2), numbers(3)];
    let outputs = g.eval(&inputs).expect("it can be interpreted");
    let mut seen = None;
    let test = &mut |c: &Case| {
        let inputs = c.inputs.as_ref().expect("they are told");
        assert_eq!(inputs.len(), c.graph.inputs.len());
        // What is looked for: the second `relu` gets operands in which some number is above 1.
        let Some(n) = c.graph.nodes.iter().rev().find(|n| n.op.name() == "relu") else {
            return Ok(false);
        };
        let mut all = c.graph.clone();
        all.outputs = vec![("y".into(), n.outputs[0])];
        let found = all.eval(inputs).map_err(|e| crate::Error::Option(e.to_string()))?;
        let large = found[0].iter().any(|x| x.f64() > 1.0);
        if c.graph.nodes.len() == 1 {
            seen.get_or_insert_with(|| found[0].clone());
        }
        Ok(large)
    };
    let (best, _) = reduce(
        Case {
            graph: g,
            inputs: Some(inputs),
        },
        test,
        &mut |_, _| Ok(()),
    )
    .expect("nothing fails");
    assert_eq!(best.graph.nodes.len(), 1, "{}", best.graph);
    // By itself, a `relu` gave what it gives in the model.
    let seen = seen.expect("one node was seen");
    assert!(outputs[1..].contains(&seen), "{seen:?}");
}

#[test]
fn extents_shrink_through_reshapes() {
    let text = "graph @r(%0 x: f32[6, 35]) {
      %1 = reshape{shape=[210]}(%0)
      %2 = reshape{shape=[6, 5, 7]}(%1)
      %3 = transpose{perm=[0, 2, 1]}(%2)
      return y = %3
    }";
    let test = &mut |c: &Case| {
        Ok(has(&c.graph, "transpose") && c.graph.nodes.iter().filter(|n| n.op.name() == "reshape").count() == 2)
    };
    let (best, _) = reduce(
        Case {
            graph: graph(text),
            inputs: None,
        },
        test,
        &mut |_, _| Ok(()),
    )
    .expect("nothing fails");
    // Of 287: the 6 is 1 everywhere. The 35 stays, which no change of one extent takes from its factors.
    assert!(Weight::of(&best.graph).extents <= 97, "{}", best.graph);
}

#[test]
fn errors_end_it() {
    let case = Case {
        graph: graph(CHAIN),
        inputs: None,
    };
    let e = reduce(
        case,
        &mut |_| Err(crate::Error::Option("no".into())),
        &mut |_, _| Ok(()),
    )
    .err();
    assert_eq!(e.map(|e| e.to_string()).as_deref(), Some("no"));
}
