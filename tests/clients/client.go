// One client library for Go; see main.rs for what it is asked to do.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/r3labs/sse/v2"
	"gopkg.in/cenkalti/backoff.v1"
)

var out sync.Mutex

func say(instance int, id, data []byte) {
	line, _ := json.Marshal(map[string]any{"instance": instance, "id": string(id), "data": string(data)})
	out.Lock()
	defer out.Unlock()
	fmt.Println(string(line))
}

func main() {
	var wait sync.WaitGroup
	for instance, url := range strings.Split(os.Args[2], ",") {
		wait.Add(1)
		go func() {
			defer wait.Done()
			client := sse.NewClient(url)
			pause := backoff.NewExponentialBackOff()
			pause.InitialInterval = 20 * time.Millisecond
			pause.MaxInterval = 500 * time.Millisecond
			pause.MaxElapsedTime = 0
			client.ReconnectStrategy = pause
			for {
				_ = client.SubscribeRaw(func(event *sse.Event) { say(instance, event.ID, event.Data) })
				time.Sleep(20 * time.Millisecond)
			}
		}()
	}
	wait.Wait()
}
