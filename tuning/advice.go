package tuning

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// hardware says how packets should be spread over cores. It prints commands and runs none: a wrong guess about a network card
// cuts off the host, and irqbalance or the cloud's own agent may know better.
func (h *Host) hardware(w Want) (advice []string) {
	cards, err := filepath.Glob(h.path("sys/class/net/*/device"))
	if err != nil || h.Cores < 2 {
		return nil
	}
	for _, device := range cards {
		card := filepath.Base(filepath.Dir(device))
		queues, err := filepath.Glob(filepath.Join(filepath.Dir(device), "queues", "rx-*"))
		if err != nil || len(queues) == 0 {
			continue
		}
		all := mask(h.Cores)
		switch {
		case len(queues) >= h.Cores:
			advice = append(advice, fmt.Sprintf("%s has %d queues for %d cores (RSS): one interrupt to a core. See grep %s /proc/interrupts; stop irqbalance, then "+
				"echo CORE > /proc/irq/NUMBER/smp_affinity_list for each, and echo MASK > /sys/class/net/%s/queues/tx-I/xps_cpus with the same core",
				card, len(queues), h.Cores, card, card))
		case len(queues) > 1:
			advice = append(advice, fmt.Sprintf("%s has %d queues for %d cores: ethtool -L %s combined %d gives each core one, if the card can", card, len(queues), h.Cores, card, h.Cores))
		case h.isSpread(queues[0]):
		default:
			advice = append(advice, fmt.Sprintf("%s has one queue for %d cores: ethtool -L %s combined %d if the card can; else RPS: echo %s > /sys/class/net/%s/queues/rx-0/rps_cpus",
				card, h.Cores, card, h.Cores, all, card))
		}
	}
	if most := uint64(portsPerAddress); w.Generator && uint64(w.Connections) > most {
		advice = append(advice, fmt.Sprintf("%s connections to one server address and port need %d source addresses of %s ports each: server tune vip add",
			count(w.Connections), (uint64(w.Connections)+most-1)/most, count(most)))
	}
	if w.Generator {
		advice = append(advice, "a server on the same host: sysctl -w net.ipv4.ip_local_reserved_ports=8080,8081 keeps outgoing connections from taking its ports")
	}
	return advice
}

// isSpread reports whether RPS is on for a queue.
func (h *Host) isSpread(queue string) bool {
	b, err := os.ReadFile(filepath.Join(queue, "rps_cpus"))
	return err == nil && strings.Trim(strings.TrimSpace(string(b)), "0,") != ""
}

// mask is the bit mask of the first n cores, in groups of 32 bits as the kernel reads it.
func mask(n int) string {
	var groups []string
	for ; n > 0; n -= 32 {
		groups = append([]string{fmt.Sprintf("%x", uint64(1)<<min(n, 32)-1)}, groups...)
	}
	return strings.Join(groups, ",")
}
