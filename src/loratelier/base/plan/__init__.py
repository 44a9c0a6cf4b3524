"""What training a model takes in memory and time, before it begins and without its weights."""

from loratelier.base.plan.memory import MemoryPlan, Moment
from loratelier.base.plan.plan import Method, Training, plan_training

__all__ = ["MemoryPlan", "Method", "Moment", "Training", "plan_training"]
