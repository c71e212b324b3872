// Files of tests that are not begun any more when the time for them is up: LIGHTERVISOR_DEADLINE, in milliseconds since 1970. They count as
// skipped, and are named.
import { type RunnerTestFile, TestRunner } from 'vitest';

const NO_NAME = /(?!)/;

// oxlint-disable-next-line import/no-default-export -- vitest asks for it
export default class DeadlineRunner extends TestRunner {
  override onCollectStart(file: RunnerTestFile): void {
    super.onCollectStart(file);
    const deadline = Number(process.env['LIGHTERVISOR_DEADLINE'] ?? Number.POSITIVE_INFINITY);
    if (Date.now() < deadline) return;
    console.warn(`the time for tests is up, this machine is slow: ${file.name} is skipped`);
    this.config.testNamePattern = NO_NAME;
  }
}
