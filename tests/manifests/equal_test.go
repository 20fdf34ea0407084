package manifests

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// helmLabels are those that Helm's guide asks for beside the name.
var helmLabels = []string{
	"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart",
}

// TestTheChartIsTheOverlay: with nothing but the shape set, both send the same to the API server.
func TestTheChartIsTheOverlay(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape, func(t *testing.T) {
			_, fromChart := mustRender(t, "shape: "+shape)
			fromOverlay := mustDecode(t, renderOverlay(t, shape))
			if len(fromChart) != len(fromOverlay) {
				t.Errorf("the chart has %d objects, the overlay %d", len(fromChart), len(fromOverlay))
			}
			set := only[*appsv1.DaemonSet](t, fromChart)
			if instance := set.Spec.Template.Labels["app.kubernetes.io/instance"]; instance != "oss" {
				t.Errorf("the Pods are of the instance %q", instance)
			}
			delete(set.Spec.Template.Labels, "app.kubernetes.io/instance")
			same(t, set, only[*appsv1.DaemonSet](t, fromOverlay))
			same(t, only[*corev1.ServiceAccount](t, fromChart), only[*corev1.ServiceAccount](t, fromOverlay))
			same(t, only[*networkingv1.NetworkPolicy](t, fromChart), only[*networkingv1.NetworkPolicy](t, fromOverlay))
		})
	}
}

func same(t *testing.T, ofChart, ofOverlay metav1.Object) {
	t.Helper()
	for _, label := range helmLabels {
		if _, there := ofChart.GetLabels()[label]; !there {
			t.Errorf("the chart's %T has no label %s", ofChart, label)
		}
		delete(ofChart.GetLabels(), label)
	}
	if difference := cmp.Diff(ofOverlay, ofChart); difference != "" {
		t.Errorf("- the overlay, + the chart:\n%s", difference)
	}
}

// TestTheDefaultShapeIsFull: it finds the plugin directory of every platform itself.
func TestTheDefaultShapeIsFull(t *testing.T) {
	_, byDefault := mustRender(t, "{}")
	_, full := mustRender(t, "shape: full")
	if difference := cmp.Diff(byDefault, full); difference != "" {
		t.Error(difference)
	}
}
