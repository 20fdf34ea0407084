package manifests

import (
	"strings"
	"testing"
)

// TestWrongValuesAreRefused: before anything is sent, with the place and what is expected there.
func TestWrongValuesAreRefused(t *testing.T) {
	for _, c := range []struct{ values, place, expected string }{
		{"shape: medium", "/shape", "must be one of 'full', 'minimal'"},
		{"shapes: full", "''", "'shapes' not allowed"},
		{"pluginDirectory: usr/libexec", "/pluginDirectory", "does not match pattern"},
		{"pluginDirectory: /var/../etc", "/pluginDirectory", "does not match pattern"},
		{"pluginDirectory: /var/lib/", "/pluginDirectory", "does not match pattern"},
		{"pluginDirectory: '/a:/b'", "/pluginDirectory", "does not match pattern"},
		{"stateDirectory: '/run/a,b'", "/stateDirectory", "does not match pattern"},
		{"stateDirectory: ''", "/stateDirectory", "does not match pattern"},
		{"period: 0", "/period", "minimum"},
		{"period: 90000", "/period", "maximum"},
		{"period: 1m", "/period", "want integer"},
		{"logFormat: xml", "/logFormat", "must be one of 'text', 'json'"},
		{"maxUnavailable: 0", "/maxUnavailable", "minimum"},
		{"maxUnavailable: '0%'", "/maxUnavailable", "does not match pattern"},
		{"resources: {limits: {memory: 16MiB}}", "/resources/limits/memory", "does not match pattern"},
		{"resources: {limits: {mem: 16Mi}}", "/resources/limits", "'mem' not allowed"},
		{"resources: {claims: []}", "/resources", "'claims' not allowed"},
		{"image: {digest: 'sha256:12'}", "/image/digest", "does not match pattern"},
		{"image: {repository: 'a b'}", "/image/repository", "does not match pattern"},
		{"image: {repository: 'a:b'}", "/image/repository", "does not match pattern"},
		{"image: {tag: ':1'}", "/image/tag", "does not match pattern"},
		{"image: {pullPolicy: Sometimes}", "/image/pullPolicy", "must be one of"},
		{"image: {pullSecrets: [key]}", "/image/pullSecrets/0", "want object"},
		{"nodeSelector: {a: 1}", "/nodeSelector/a", "want string"},
		{"nodeSelector: {'a b': c}", "/nodeSelector", "'a b' not allowed"},
		{"tolerations: [{key: a, operator: In}]", "/tolerations/0/operator", "must be one of"},
		{"tolerations: {operator: Exists}", "/tolerations", "want array"},
		{"seLinuxType: 'spc_t:s0'", "/seLinuxType", "does not match pattern"},
		{"ossfsPackages: {volume: {hostpath: {}}}", "/ossfsPackages/volume", "'hostpath' not allowed"},
		{"ossfsPackages: {volume: {hostPath: {path: /a}, nfs: {}}}", "/ossfsPackages/volume", "maxProperties"},
		{"ossfsPackages: {directory: packages}", "/ossfsPackages/directory", "does not match pattern"},
		{"enabled: 'yes'", "/enabled", "want boolean"},
		{"podLabels: {app: other}", "'app'", "invalid propertyName"},
		{"podLabels: {a: 'b c'}", "/podLabels/a", "does not match pattern"},
		{"podAnnotations: {a: 1}", "/podAnnotations/a", "want string"},
		{"extraEnv: [{value: x}]", "/extraEnv/0", "missing property 'name'"},
		{"updateStrategy: {type: Recreate}", "/updateStrategy/type", "must be one of"},
		{"networkPolicy: true", "/networkPolicy", "want object"},
		{"ossfsPackages: {dependencies: network}", "/ossfsPackages/dependencies", "must be one of"},
		{"test: {bucket: My_Data}", "/test/bucket", "does not match pattern"},
		{"test: {bucket: docker}", "test", "the endpoint of the bucket is expected"},
		{"config: {memoryLimit: 63Mi}", "/config/memoryLimit", "does not match pattern"},
		{"config: {memoryLimit: 1025Gi}", "/config/memoryLimit", "does not match pattern"},
		{"config: {ossf: x}", "/config", "'ossf' not allowed"},
		{"config: {stateDir: /run/x}", "/config", "'stateDir' not allowed"},
		{"config: {ossfs: bin/ossfs}", "/config/ossfs", "does not match pattern"},
		{"config: {logLevel: trace}", "/config/logLevel", "must be one of"},
		{"config: {launcher: shell}", "/config/launcher", "must be one of"},
		{"config: {mountTimeoutSeconds: '30'}", "/config/mountTimeoutSeconds", "want integer"},
		{"config: {mountTimeoutSeconds: 3601}", "/config/mountTimeoutSeconds", "maximum"},
		{"config: {allowedOptions: ['-o use_cache']}", "/config/allowedOptions/0", "does not match pattern"},
		{"config: {defaultOptions: 'noua'}", "/config/defaultOptions", "want array"},
		{"config: {allowedEndpoints: ['https://x']}", "/config/allowedEndpoints/0", "does not match pattern"},
		{"config: {allowedEndpoints: ['*aliyuncs.com']}", "/config/allowedEndpoints/0", "does not match pattern"},
		{"config: {allowedEndpoints: ['*.a.*.b']}", "/config/allowedEndpoints/0", "does not match pattern"},
		{"config: {nodeCredentials: {bucket: []}}", "/config/nodeCredentials", "'bucket' not allowed"},
		{"config: {nodeCredentials: {ramRole: 'http://x'}}", "/config/nodeCredentials/ramRole", "does not match pattern"},
		// These concern two values, and the templates refuse them.
		{"{shape: minimal, config: {ossfs: x}}", "config", "use shape: full"},
		{"{shape: minimal, ossfsPackages: {directory: /p}}", "ossfsPackages", "use shape: full"},
		{"ossfsPackages: {directory: /p, volume: {nfs: {server: a, path: /b}}}", "ossfsPackages", "one of them is expected"},
	} {
		_, err := renderChart(c.values)
		if err == nil {
			t.Errorf("%s: not refused", c.values)
		} else if text := err.Error(); !strings.Contains(text, c.place) || !strings.Contains(text, c.expected) {
			t.Errorf("%s: %q and %q are expected in\n%s", c.values, c.place, c.expected, text)
		}
	}
}
