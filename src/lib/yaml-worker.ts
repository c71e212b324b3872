// The thread that reads a large document.
import { isMainThread, type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { loadParser, READING, readYaml, type YamlJob } from './foreign-yaml.ts';

async function answer(port: MessagePort): Promise<void> {
  await loadParser();
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  port.postMessage(READING);
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- as above
  port.postMessage(await readYaml(workerData as YamlJob));
}

if (!isMainThread && parentPort !== null) await answer(parentPort);
