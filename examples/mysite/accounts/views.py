from django.contrib.auth import get_user_model
from django.db import connection, transaction
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.response import Response
from rest_framework.views import APIView

from myapp_infra.tasks import send_email_task

from .tasks import count_users


class Registration(serializers.Serializer):
    username = serializers.CharField(max_length=150)
    email = serializers.EmailField()


class Register(APIView):
    """Creates a user and greets them by mail, but only if the user is really there in the end."""

    @transaction.atomic
    def post(self, request):
        form = Registration(data=request.data)
        form.is_valid(raise_exception=True)
        user = get_user_model().objects.create_user(**form.validated_data)
        result = send_email_task.delay_on_commit("Welcome", f"Hello {user.username}!", [user.email])
        if request.query_params.get("fail"):
            raise APIException("the registration was rolled back, as asked for with ?fail=1")
        return Response({"user_id": user.pk, "task_id": result.id, "in_atomic": connection.in_atomic_block})


class UserCount(APIView):
    """Counts the users in the site and, for comparison, in the worker."""

    def get(self, request):
        in_worker = count_users.delay().get(timeout=10)
        return Response({"here": get_user_model().objects.count(), "in_worker": in_worker})
