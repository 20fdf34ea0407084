// Package manifests holds everything of the repository that is sent to a Kubernetes API server against
// that server's own code: the overlays of installer/deploy, the chart of packaging/helm and the
// examples. They are rendered by Kustomize's and Helm's own libraries, decoded strictly, filled with
// defaults and validated by the packages of k8s.io/kubernetes, and judged by the Pod Security Standards'
// own evaluation.
package manifests

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const (
	chartDirectory = "../../packaging/helm/alicloud-oss-flexvolume"
	deploy         = "../../installer/deploy"
	examples       = "../../installer/examples"
)

// shapes are those that deploy and the chart both have.
var shapes = []string{"minimal", "full"}

// renderOverlay returns what `kubectl apply -k` sends for a shape.
func renderOverlay(t *testing.T, shape string) []byte {
	t.Helper()
	kustomizer := krusty.MakeKustomizer(krusty.MakeDefaultOptions())
	resources, err := kustomizer.Run(filesys.MakeFsOnDisk(), filepath.Join(deploy, shape))
	if err != nil {
		t.Fatal(err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// chart is what Helm makes of the chart with some values.
type chart struct {
	manifests []byte
	notes     string
}

// renderChart renders the chart with values (YAML) as `helm install --namespace kube-system` does.
func renderChart(values string) (chart, error) { return renderChartFor("v1.36.0", values) }

// renderChartFor is renderChart for a cluster of a version.
func renderChartFor(version, values string) (chart, error) {
	cluster, err := common.ParseKubeVersion(version)
	if err != nil {
		return chart{}, err
	}
	capabilities := common.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *cluster
	given := map[string]any{}
	if err := yaml.Unmarshal([]byte(values), &given); err != nil {
		return chart{}, err
	}
	loaded, err := loader.Load(chartDirectory)
	if err != nil {
		return chart{}, err
	}
	options := common.ReleaseOptions{Name: "oss", Namespace: "kube-system", Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(loaded, given, options, capabilities)
	if err != nil {
		return chart{}, err
	}
	files, err := engine.Render(loaded, all)
	if err != nil {
		return chart{}, err
	}
	var rendered chart
	for _, name := range slices.Sorted(maps.Keys(files)) {
		switch text := files[name]; {
		case strings.HasSuffix(name, "NOTES.txt"):
			rendered.notes = text
		case strings.TrimSpace(text) != "":
			rendered.manifests = append(rendered.manifests, "---\n"+text+"\n"...)
		}
	}
	return rendered, nil
}

// mustRender is renderChart for values that are right, and the objects in it.
func mustRender(t *testing.T, values string) (chart, []runtime.Object) {
	t.Helper()
	rendered, err := renderChart(values)
	if err != nil {
		t.Fatal(err)
	}
	return rendered, mustDecode(t, rendered.manifests)
}
