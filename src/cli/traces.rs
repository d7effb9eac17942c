//! Traces by OpenTelemetry: off unless a collector is named.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use super::Failure;

/// Sends spans in the background; what is left is sent when the command ends.
#[derive(Debug, Default)]
pub(super) struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// To a collector's gRPC port, as `http://127.0.0.1:4317`. Called where a runtime is at hand.
    pub(super) fn to(collector: Option<&str>) -> Result<Self, Failure> {
        let Some(collector) = collector.filter(|text| !text.is_empty()) else { return Ok(Self(None)) };
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(collector).build();
        let exporter = exporter.map_err(|_| {
            Failure::new("traces cannot be sent to this collector", "write --otlp http://HOST:4317")
        })?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(Resource::builder().with_service_name("trueup").build())
            .build();
        Ok(Self(Some(provider)))
    }

    /// Spans of our own alone: those of libraries could show what they are given.
    pub(super) fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let tracer = self.0.as_ref()?.tracer("trueup");
        let ours = Targets::new().with_target("trueup", tracing::Level::INFO);
        Some(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(ours))
    }

    pub(super) fn end(self) {
        if let Some(Err(error)) = self.0.map(|provider| provider.shutdown()) {
            tracing::debug!("the last traces were not sent: {error}");
        }
    }
}
