package insight

import _ "embed"

// Dashboard is a dashboard for Grafana over a Prometheus that scrapes the server.
//
//go:embed dashboard.json
var Dashboard string

// Alerts are rules for Prometheus. README.md says what each means and what to do.
//
//go:embed alerts.yaml
var Alerts string
