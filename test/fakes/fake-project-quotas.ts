// Project quotas in memory; off unless a test switches them on.
import type { ProjectQuotas } from '#src/host/project-quota.ts';

export class FakeProjectQuotas implements ProjectQuotas {
  on = false;
  readonly projects = new Map<string, number>();
  readonly limits = new Map<number, number>();

  enabled(): Promise<boolean> {
    return Promise.resolve(this.on);
  }

  assign(path: string, projectId: number): Promise<void> {
    this.projects.set(path, projectId);
    return Promise.resolve();
  }

  limit(_path: string, projectId: number, bytes: number | undefined): Promise<void> {
    if (bytes === undefined) this.limits.delete(projectId);
    else this.limits.set(projectId, bytes);
    return Promise.resolve();
  }

  used(): Promise<number> {
    return Promise.resolve(0);
  }
}
