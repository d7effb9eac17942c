//! Traces to a collector: which spans, below which, and that they hold no values.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::{Request, Response, Status};

use super::support::process::trueup;
use super::support::servers::SqliteDb;

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter();
        let spans = spans.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        self.0.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[test]
fn a_run_is_a_tree_of_spans_without_values() {
    const MARK: &str = "MARKED-VALUE-2B";
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute(&format!("CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO orders VALUES (1, '{MARK}'), (2, 'b')"));
    }
    target.execute("DELETE FROM orders WHERE id = 1");
    let collector = Collector::default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(collector.clone());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        address
    });
    let url = format!("http://{address}");
    let repaired =
        trueup(&["repair", &source.url(), &target.url(), "--recheck-delay", "1ms", "-q", "--otlp", &url]);
    assert_eq!(repaired.status, 0, "{repaired:?}");
    let spans = collector.0.lock().unwrap().clone();
    let of = |name: &str| {
        spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:?}"))
    };
    for (name, above) in
        [("table", "run"), ("scan", "table"), ("locate", "table"), ("settle", "table"), ("verify", "settle")]
    {
        let mut span = of(name);
        let mut names = vec![name.to_owned()];
        while let Some(parent) = spans.iter().find(|other| other.span_id == span.parent_span_id) {
            names.push(parent.name.clone());
            span = parent;
        }
        assert!(names.contains(&above.to_owned()), "{name} is below {names:?}");
    }
    let all = format!("{spans:?}");
    assert!(all.contains("orders") && !all.contains(MARK), "{all}");
    // Without a collector nothing is sent, and one that is not there stops nobody.
    collector.0.lock().unwrap().clear();
    assert_eq!(trueup(&["diff", &source.url(), &target.url(), "-q"]).status, 0);
    assert!(collector.0.lock().unwrap().is_empty());
    drop(runtime);
    assert_eq!(
        trueup(&["diff", &source.url(), &target.url(), "-q", "--otlp", "http://127.0.0.1:1"]).status,
        0
    );
}
